"""Data sets: CIFAR-10, CIFAR-100, folders of pictures, a built-in drawn set; and the order an epoch shows them in."""

from ..folders import cache_folder
from .batches import epoch_batches, epoch_draws
from .check import check_dataset
from .cifar import FileFacts
from .dataset import Dataset, channel_statistics
from .drawn import draw_shapes
from .pictures import read_pictures
from .sources import download_cifar10, download_cifar100, find_cifar10, load, verify

__all__ = [
    "Dataset",
    "FileFacts",
    "cache_folder",
    "channel_statistics",
    "check_dataset",
    "download_cifar10",
    "download_cifar100",
    "draw_shapes",
    "epoch_batches",
    "epoch_draws",
    "find_cifar10",
    "load",
    "read_pictures",
    "verify",
]

"""Data sets: CIFAR-10 from files or mirrors, a built-in drawn set, and the order in which an epoch shows them."""

from .batches import epoch_batches, epoch_draws
from .cifar10 import FileFacts
from .dataset import Dataset, channel_statistics
from .drawn import draw_shapes
from .sources import cache_folder, download_cifar10, find_cifar10, load, verify

__all__ = [
    "Dataset",
    "FileFacts",
    "cache_folder",
    "channel_statistics",
    "download_cifar10",
    "draw_shapes",
    "epoch_batches",
    "epoch_draws",
    "find_cifar10",
    "load",
    "verify",
]

"""Every loader of the package, and files that run code where somebody unpickles or evaluates them."""

import io
import os
import pickle
import zipfile

import numpy as np

import gpuconv
from gpuconv import data, export, nn, train
from gpuconv.compat import data_utils
from gpuconv.data.pickles import read_pickle
from gpuconv.runs import journal, sealed, settings
from gpuconv.runs.prediction import read


class Payload:
    """Pickles as a call of os.system."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def as_pickle(harm):
    return pickle.dumps({"model": harm, "data": harm})


def as_npz(harm):
    file = io.BytesIO()
    np.savez(file, X=np.zeros(2), y=np.array([harm], object), label_map=np.array({1: harm}, object))
    return file.getvalue()


def as_npy(harm):
    file = io.BytesIO()
    np.save(file, np.array([harm], object))
    return file.getvalue()


def as_torch(harm):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("archive/data.pkl", as_pickle(harm))
    return file.getvalue()


def written(path, content):
    """Write a file, with the folders it lies in, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def imagenet(path):
    os.chdir(path.parent)
    return data_utils.load_imagenet_val()


def opened(path):
    with path.open("rb") as file:
        return data_utils.load_pickle(file)


_BATCH = "cifar-10-batches-py/data_batch_1"
LOADERS = {
    "compat.load_pickle": ("a.pkl", opened),
    "compat.load_CIFAR_batch": ("data_batch_1", data_utils.load_CIFAR_batch),
    "compat.load_CIFAR10": (_BATCH, lambda path: data_utils.load_CIFAR10(path.parent)),
    "compat.load_models": ("a.pkl", lambda path: data_utils.load_models(path.parent)),
    "compat.load_imagenet_val": ("imagenet_val_25.npz", imagenet),
    "compat.load_tiny_imagenet": ("wnids.txt", lambda path: data_utils.load_tiny_imagenet(path.parent)),
    "data.load": (_BATCH, lambda path: data.load("cifar10", folder=path.parent)),
    "data.load, archive": ("cifar-10-python.tar.gz", lambda path: data.load("cifar10", folder=path)),
    "data.load, pictures": ("dogs/a.png", lambda path: data.load(str(path.parent.parent))),
    "pickles.read_pickle": ("a.pkl", lambda path: read_pickle(path.read_bytes(), "it", most_steps=1000)),
    "sealed.read": ("a.safetensors", sealed.read),
    "train.load_net": ("last.safetensors", train.load_net),
    "gpuconv.load": ("best.safetensors", lambda path: gpuconv.load(path.parent)),
    "prediction.read": ("a.png", lambda path: read(path, (3, 8, 8))),
    "prediction.read, folder": ("a.png", lambda path: read(path.parent, (3, 8, 8))),
    "train.resume": ("last.safetensors", train.resume),
    "train.Run": ("result.json", lambda path: train.Run(path.parent).result),
    "export.from_torch": ("a.safetensors", export.from_torch),
    "export.from_onnx": ("a.onnx", export.from_onnx),
    "nn.from_file": ("a.toml", lambda path: nn.from_file(path, input_shape=(3, 8, 8), classes=2)),
    "config.read": ("a.toml", settings.read),
    "journal.read": ("events.jsonl", lambda path: journal.read(path.parent)),
}

"""A CIFAR-10 of 600 random pictures in every form the real one has, and the specification it is the original of."""

import functools
import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np

from gpuconv.data import cifar, cifar10

RECORDS = 100
BATCHES = cifar10.OFFICIAL.batches
BINARY, PYTHON = "binary", "python"
_FOLDERS = {BINARY: "cifar-10-batches-bin", PYTHON: "cifar-10-batches-py"}
_SUFFIX = {BINARY: ".bin", PYTHON: ""}
ARCHIVES = {BINARY: "cifar-10-binary.tar.gz", PYTHON: "cifar-10-python.tar.gz"}


@functools.cache
def records():
    """Return {batch: (100, 3073) uint8}: classes balanced over the training set and in the test batch, not per batch."""
    rng = np.random.default_rng(10)
    train = rng.permutation(np.repeat(np.arange(10), 5 * RECORDS // 10))
    labels = np.concatenate([train, rng.permutation(np.repeat(np.arange(10), RECORDS // 10))])
    result = {}
    for place, batch in enumerate(BATCHES):
        rows = rng.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
        rows[:, 0] = labels[place * RECORDS : (place + 1) * RECORDS]
        result[batch] = rows
    return result


def arrays():
    """Return x_train, y_train, x_test, y_test as they must come out."""
    rows = np.concatenate(list(records().values()))
    x, y = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)
    return x[: 5 * RECORDS], y[: 5 * RECORDS], x[5 * RECORDS :], y[5 * RECORDS :]


def binary_files(batches=None):
    """Return {file name: bytes} in the binary format."""
    return {f"{batch}.bin": rows.tobytes() for batch, rows in (batches or records()).items()}


def batch_dict(rows, key=str.encode):
    content = {
        "batch_label": "a batch",
        "labels": rows[:, 0].tolist(),
        "data": np.ascontiguousarray(rows[:, 1:]),
        "filenames": [f"picture_{i:04}.png" for i in range(len(rows))],
    }
    return {key(name): value for name, value in content.items()}


def python_files(protocol=4, key=str.encode, batches=None):
    """Return {file name: bytes} as pickles."""
    return {
        batch: pickle.dumps(batch_dict(rows, key), protocol=protocol) for batch, rows in (batches or records()).items()
    }


def files(kind):
    return binary_files() if kind == BINARY else python_files()


def write(folder, contents):
    """Write {file name: bytes} into a folder, made if need be, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_folder(place, kind, contents=None):
    return write(place / _FOLDERS[kind], contents or files(kind))


def member(name, content=b"", **fields):
    """Return a tar member and its content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def members(kind, contents=None):
    """Return the members a published archive has: a folder, the batches in no order, a readme."""
    folder = _FOLDERS[kind]
    batches = [member(f"{folder}/{name}", content) for name, content in (contents or files(kind)).items()]
    return [
        member(f"{folder}/", type=tarfile.DIRTYPE),
        *batches[3:],
        member(f"{folder}/readme.html", b"<html>readme</html>"),
        *batches[:3],
    ]


def archive(parts, tar_format=tarfile.USTAR_FORMAT):
    """Return the bytes of a .tar.gz, the same for the same members."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tar_format) as tar,
    ):
        for info, content in parts:
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@functools.cache
def official_archive(kind):
    return archive(members(kind))


@functools.cache
def spec():
    """Return the specification by which these pictures are the original."""
    return cifar.Spec(
        name="CIFAR-10",
        labels=cifar10.OFFICIAL.labels,
        records=dict.fromkeys(BATCHES, RECORDS),
        sha256={batch: hashlib.sha256(rows.tobytes()).hexdigest() for batch, rows in records().items()},
        layouts=tuple(
            cifar.Layout(
                kind=kind,
                folder=_FOLDERS[kind],
                suffix=_SUFFIX[kind],
                archive=ARCHIVES[kind],
                archive_bytes=len(official_archive(kind)),
                archive_sha256=hashlib.sha256(official_archive(kind)).hexdigest(),
            )
            for kind in (BINARY, PYTHON)
        ),
    )


def write_archive(folder, kind, content=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARCHIVES[kind]
    path.write_bytes(official_archive(kind) if content is None else content)
    return path


def read(place):
    """Find and read the CIFAR-10 at a place as `load` does."""
    source = cifar.find(place, spec())
    assert source is not None, f"nothing found in {place}"
    return cifar.read(source, spec())

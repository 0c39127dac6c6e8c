"""What CIFAR-10 is: its classes, its files, and by which hashes the original is told."""

from __future__ import annotations

from .cifar import Labels, Layout, Spec

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

OFFICIAL = Spec(
    name="CIFAR-10",
    labels=(Labels("labels", CLASSES),),
    records={f"data_batch_{number}": 10_000 for number in range(1, 6)} | {"test_batch": 10_000},
    sha256={
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    layouts=(
        Layout(
            kind="binary",
            folder="cifar-10-batches-bin",
            suffix=".bin",
            archive="cifar-10-binary.tar.gz",
            archive_bytes=170_052_171,
            archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        Layout(
            kind="python",
            folder="cifar-10-batches-py",
            suffix="",
            archive="cifar-10-python.tar.gz",
            archive_bytes=170_498_071,
            archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
)

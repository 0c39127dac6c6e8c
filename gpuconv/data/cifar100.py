"""What CIFAR-100 is: its classes and superclasses, its files, and by which hashes the original is told.

Two records that do not depend on each other confirm every hash here: of the binary form that is the archive's alone,
so its unpacked files are read and checked like any, but not called the original.
"""

from __future__ import annotations

from .cifar import Labels, Layout, Spec


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SUPERCLASSES = _words(
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes "
    "large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees "
    "vehicles_1 vehicles_2 "
)
CLASSES = _words(
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)

OFFICIAL = Spec(
    name="CIFAR-100",
    labels=(Labels("coarse_labels", SUPERCLASSES), Labels("fine_labels", CLASSES)),
    records={"train": 50_000, "test": 10_000},
    sha256={},
    layouts=(
        Layout(
            kind="binary",
            folder="cifar-100-binary",
            suffix=".bin",
            archive="cifar-100-binary.tar.gz",
            archive_bytes=168_513_733,
            archive_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        Layout(
            kind="python",
            folder="cifar-100-python",
            suffix="",
            archive="cifar-100-python.tar.gz",
            archive_bytes=169_001_437,
            archive_sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            sha256={
                "train": "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
                "test": "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
            },
        ),
    ),
    telling_names=False,
)

"""Read CIFAR-10 or CIFAR-100 from binary files, Python batches or either archive; tell whether it is the original.

Nothing is unpacked to the disk and nothing in a file is run.  Whatever the format, a batch becomes records of the
binary format (a byte per label, then 3 x 32 x 32 colour bytes).
"""

from .original import NAME_FILE
from .records import Pictures, read, read_batch
from .source import Source, find
from .spec import Labels, Layout, Spec
from .verify import FileFacts, facts

__all__ = [
    "NAME_FILE",
    "FileFacts",
    "Labels",
    "Layout",
    "Pictures",
    "Source",
    "Spec",
    "facts",
    "find",
    "read",
    "read_batch",
]

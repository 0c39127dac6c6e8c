"""Run CUDA kernels on the CPU, to test them where there is no GPU: see README.md."""

from .array import EmulatedArray
from .device import MODES, EmulatedDevice
from .emulator import ORDERS, LaunchRecord, Settings
from .errors import BuildError, EmulationError, EmulatorUnavailableError

__all__ = [
    "MODES",
    "ORDERS",
    "BuildError",
    "EmulatedArray",
    "EmulatedDevice",
    "EmulationError",
    "EmulatorUnavailableError",
    "LaunchRecord",
    "Settings",
]

"""Errors of the emulator: what is missing, what does not compile, and what a kernel did wrong."""


class EmulatorUnavailableError(RuntimeError):
    """The machine lacks something the emulator needs: g++, binutils or NVRTC."""


class BuildError(RuntimeError):
    """A kernel did not compile; the message is the compiler's."""


class EmulationError(RuntimeError):
    """A launch was refused, or the kernel did something it must not; the message names thread and source line."""

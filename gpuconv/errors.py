"""Every error gpuconv raises on purpose: one family, each also the built-in that Python users expect to catch."""

from __future__ import annotations


class GpuconvError(Exception):
    """Base of all errors raised by gpuconv; catch it to catch them all."""


# Arguments of an operator -------------------------------------------------------------------------------------------


class ShapeError(GpuconvError, ValueError):
    """Array sizes that do not fit each other or the operator."""


class ParamError(GpuconvError, ValueError):
    """A parameter of the right kind with a value outside its range."""


class ArgTypeError(GpuconvError, TypeError):
    """An argument of the wrong kind: a list for an array, a float for a count."""


class DTypeError(GpuconvError, TypeError):
    """An array element type that the operator does not take, or two that do not match."""


class DeviceMismatchError(GpuconvError, ValueError):
    """Arrays of one call that live in different places."""


class AliasError(GpuconvError, ValueError):
    """An array to be written that is read-only, or shares memory where it must not."""


class CacheError(GpuconvError, ValueError):
    """A backward call with a cache that its forward did not make, or that changed since."""


class GradientError(GpuconvError, AssertionError):
    """A gradient that is not the derivative of its function."""


class UnsupportedError(GpuconvError, NotImplementedError):
    """Something gpuconv does not offer (yet)."""


class GpuUnavailableError(GpuconvError, RuntimeError):
    """A GPU was asked for by name and cannot be used."""


class GpuLaunchError(GpuconvError, RuntimeError):
    """A kernel that does not compile, cannot be launched, or (seen with GPUCONV_DEBUG=1) fails while running."""


class GpuFaultError(GpuLaunchError, RuntimeError):
    """A kernel that failed while running, seen at a later call; the process can use that GPU no more."""


class RecordingError(GpuconvError, RuntimeError):
    """Work that cannot be recorded or captured, or a recording that cannot be replayed."""


class SizeLimitError(GpuconvError, OverflowError):
    """A size beyond what an array, or a CUDA launch, can count."""


# Training -----------------------------------------------------------------------------------------------------------


class ConfigError(GpuconvError, ValueError):
    """A setting (flag, environment variable, config file) that cannot be used.  The command line exits with 2."""


class StaleBatchError(GpuconvError, RuntimeError):
    """A batch on a GPU whose epoch is over: what chose its pictures is gone."""


class NonFiniteLossError(GpuconvError, ArithmeticError):
    """The loss, a gradient or a weight became NaN or infinite; a checkpoint from before is kept, if there was one."""


class ProcessError(GpuconvError, RuntimeError):
    """Another process of a run has failed, or does not answer: this one cannot go on.

    code: what the command line exits with.   why: 0 an error, 1 no answer, 2 another process has said so.
    """

    def __init__(self, text: str, code: int = 1, why: int = 0) -> None:
        super().__init__(text)
        self.code, self.why = code, why

    def __reduce__(self) -> tuple[type[ProcessError], tuple[str, int, int]]:
        return type(self), (str(self), self.code, self.why)


class SaidElsewhereError(GpuconvError, RuntimeError):
    """A run of many processes has ended in an error that another one says.   code: what the command line exits with."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class DriftError(GpuconvError, ArithmeticError):
    """Processes that train one net together, and whose weights are no longer the same."""


class NonFiniteScoresError(GpuconvError, ArithmeticError):
    """A net whose scores are NaN or infinite, so that none is the highest; `fault` says it without the way out."""

    def __init__(self, fault: str, way_out: str = "") -> None:
        super().__init__(f"{fault}: {way_out}" if way_out else fault)
        self.fault = fault


class CheckpointCorruptError(GpuconvError, ValueError):
    """A checkpoint file whose bytes are not the ones that were written."""


class CheckpointMismatchError(GpuconvError, ValueError):
    """A sound checkpoint of another net, optimiser or run."""


class CheckpointVersionError(GpuconvError, ValueError):
    """A checkpoint written in a format this version does not read."""


class CheckpointWriteError(GpuconvError, OSError):
    """A checkpoint that could not be written; the previous one is untouched."""


class ExportCheckError(GpuconvError, ArithmeticError):
    """An exported net whose scores, in the other program, are not ours; nothing was written."""


# Data ---------------------------------------------------------------------------------------------------------------


class DatasetCorruptError(GpuconvError, ValueError):
    """Data files whose size, hash or content is not what it must be."""


class DatasetMissingError(GpuconvError, FileNotFoundError):
    """A data set that is not there; the message says what to fetch and where to put it."""


class DownloadError(GpuconvError, OSError):
    """A download that failed from every mirror."""


class UnsafeArchiveError(GpuconvError, ValueError):
    """An archive or pickle that holds something other than plain data."""

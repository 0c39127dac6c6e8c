"""The error of this package: what the machine lacks, or a setting that makes no sense."""


class CupyEmulatedError(RuntimeError):
    """CuPy cannot be emulated here; the message is one sentence that says what to do."""

"""Ctrl-C ends the command `gpuconv` with exit code 130 and without a traceback, from its first line to its last.

While a command runs, Ctrl-C is an exception as everywhere, of which `cli.main` makes an exit code.  Before that and after
it nobody would catch one, and there is nothing to save: there the process ends at once.
"""

import sys  # and nothing else: what is imported here could be interrupted before it is known whose Ctrl-C that is

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def is_command() -> bool:
    """Return whether this process was started as the command `gpuconv` or as `python -m gpuconv`.

    A process that such a command starts has its sys.argv, but was itself started as something else.
    """
    if "-m" in sys.orig_argv and sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["gpuconv"]:
        return True
    script = sys.argv[0] if sys.argv else ""
    name = script.replace("\\", "/").rpartition("/")[2].removesuffix(".exe").removesuffix("-script.py")
    return name == "gpuconv" and script in sys.orig_argv


def end_at_once() -> None:
    """Let Ctrl-C end this process with 130, if it is the command, wherever it would raise KeyboardInterrupt else."""
    if is_command():
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as behind nohup
            signal.signal(signal.SIGINT, _end)
        sys.unraisablehook = _end_where_nothing_can_be_raised


def raise_exceptions() -> None:
    """Undo `end_at_once`: from here on somebody catches KeyboardInterrupt."""
    import signal

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(signum: int, frame: "FrameType | None") -> "NoReturn":
    import os

    os._exit(128 + signum)  # an exception could be lost, or shown with a traceback, in whatever is being imported


def _end_where_nothing_can_be_raised(lost: "sys.UnraisableHookArgs") -> None:
    """Take Ctrl-C that arrived while Python was deleting something: it would be shown, and then forgotten."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        import signal

        _end(signal.SIGINT, None)
    sys.__unraisablehook__(lost)

"""KeyboardInterrupt at a chosen place of the package's code, as Ctrl-C raises it at one nobody chose."""

import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import gpuconv

PACKAGE = Path(gpuconv.__file__).parent


def interrupted_at(place, function, *, folders, opcodes=False):
    """Call function with an interrupt at the place-th line (with opcodes: instruction), counted in files of `folders`.

    Return whether it has so many.  An interrupt that is raised must come out as the KeyboardInterrupt it is.
    """
    count = 0
    event_wanted = "opcode" if opcodes else "line"
    prefixes = tuple(str(PACKAGE / folder) for folder in folders)

    def inside(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = opcodes
        if event == event_wanted:
            count += 1
            if count == place:
                sys.settrace(None)
                raise KeyboardInterrupt
        return inside

    def entered(frame, event, argument):
        return inside(frame, event, argument) if frame.f_code.co_filename.startswith(prefixes) else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    assert count < place, "the interrupt was swallowed"
    return False


@contextmanager
def watched(seconds):
    """Turn a hang into an error, none that code may take for its own: a lock never let go, a loop that does not end."""

    def give_up(signum, frame):
        msg = f"nothing came back for {seconds} s, at {frame}"
        raise AssertionError(msg)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_another_thread(function):
    """Return what function returns in a thread of its own, which has to wait for any lock that was left behind."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(60)
    assert results, "the thread hangs, or has failed"
    return results[0]

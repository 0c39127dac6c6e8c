"""bench/harness.py with sides that pretend: order, checks, failures; and one real side in its process."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from bench import clocks, harness, inputs, load, memory, oracle, peaks, peers, tables, worker
from bench.cases import Case
from bench.harness import Settings, SideError
from bench.peers import ours
from bench.results import FAILED, NOT_OFFERED, ONE_THREAD, OURS, from_json
from gpuconv.version import gpuconv_version

CASE = Case("pretended", "conv", (1, 2, 4, 4), (3, 2, 3, 3), {"pad": 1})
QUICK = Settings(rounds=4, memory=False)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nothing here is measured."""
    monkeypatch.setattr(harness, "_REST_SECONDS", 0)


class Pretender:
    """A side that returns right results, as the oracle has them, unless told otherwise; it notes what it is asked."""

    def __init__(self, name, log, *, ms=1.0, spoil=(), refuse=(), fail_at=None, round_seconds=0.001):
        self.name, self.log, self.ms, self.spoil, self.refuse = name, log, ms, spoil, refuse
        self.fail_at, self.round_seconds, self.timed = fail_at, round_seconds, 0

    def ask(self, method, *arguments):
        if method == "prepare":
            return self._prepare(*arguments)
        if method == "warm":
            self.log.append(("warm", self.name, *arguments[:2]))
            return self.round_seconds
        if method == "time":
            self.timed += 1
            if self.timed == self.fail_at:
                raise SideError(FAILED, "its process ended with status -9")
            self.log.append(("time", self.name, *arguments))
            return {"ms": self.ms}
        if method == "processor_time":
            self.timed += 1
            if self.timed == self.fail_at:
                raise SideError(FAILED, "its process ended with status -9")
            self.log.append(("processor_time", self.name, *arguments))
            return self.ms
        if method == "peaks":
            return {"GB/s": 10.0, "GFLOP/s float32": 100.0}
        return "1.0" if method == "start" else None

    def _prepare(self, case, layout, regime):
        if layout in self.refuse:
            raise SideError(NOT_OFFERED, f"knows no {layout}")
        references = oracle.references(inputs.draw(case, regime=regime))
        found = {
            direction: [oracle.Sample(reference.shape, reference.values.copy(), True) for reference in expected]
            for direction, expected in references.items()
        }
        for direction in self.spoil:
            found[direction][0].values[0] += 1.0
        return found

    def memory(self, case, layout, regime):
        return {"forward": 1000}

    def stop(self):
        self.log.append(("stop", self.name))


class Noting(harness.Watch):
    """Notes what it is told."""

    def __init__(self, told):
        self.told = told

    def peaks(self, peaks):
        self.told.append(("peaks", dict(peaks)))

    def case(self, case, regime):
        self.told.append(("case", case.name))

    def doing(self, what):
        self.told.append(("doing", what))

    def row(self, row):
        self.told.append(("row", row))

    def end_case(self):
        self.told.append(("end_case",))


def compared(*sides, settings=QUICK, case=CASE, alone=()):
    return harness.compare(case, "float32", sides, settings, alone)


def test_rounds_go_forwards_and_backwards():
    assert list(harness.turns("AB", 2)) == list("ABBA")
    assert list(harness.turns("ABC", 3)) == list("ABCCBAABC")
    assert list(harness.turns("AB", 2, 3)) == list("BAAB")


def test_every_side_and_format_is_timed_in_turn_once_all_are_warm():
    log = []
    rows = compared(Pretender(OURS, log), Pretender("peer", log))
    order = [(OURS, "NCHW"), (OURS, "NHWC"), ("peer", "NCHW"), ("peer", "NHWC")]
    expected = []
    for direction in ("forward", "backward"):
        expected += [("warm", *entry, direction) for entry in order]
        expected += [("time", *entry, direction) for _ in range(2) for entry in (*order, *order[::-1])]
    assert log == expected
    assert [row.direction for row in rows] == ["forward", "backward"]
    assert all(len(entry.times["ms"]) == 4 for row in rows for entry in row.entries)


def test_a_wrong_result_is_named_and_not_timed():
    log = []
    forward, backward = compared(Pretender(OURS, log), Pretender("peer", log, spoil=["backward"]))
    wrong = [entry for entry in backward.entries if entry.side == "peer"]
    assert [entry.status for entry in wrong] == ["wrong", "wrong"]
    assert all(entry.why.startswith("dx off by ") and not entry.times and entry.error > 1e-3 for entry in wrong)
    assert not [note for note in log if note[1] == "peer" and note[3] == "backward"]
    assert backward.ratio("peer") is None
    assert forward.ratio("peer").value == 1.0


def test_gpuconv_itself_is_held_to_the_oracle():
    log = []
    forward, _ = compared(Pretender(OURS, log, spoil=["forward"]), Pretender("peer", log))
    assert [entry.status for entry in forward.entries] == ["wrong", "wrong", "measured", "measured"]
    assert forward.ratio("peer") is None


def test_a_format_that_is_not_offered_leaves_the_other():
    log = []
    forward, _ = compared(Pretender(OURS, log), Pretender("peer", log, refuse=["NHWC"]))
    assert forward.entry("peer", "NHWC").why == "knows no NHWC"
    assert forward.ratio("peer", "NHWC") is None
    assert forward.ratio("peer", "NCHW").value == forward.ratio("peer").value == 1.0


def test_a_side_that_fails_while_timed_leaves_the_others():
    log = []
    forward, backward = compared(Pretender(OURS, log), Pretender("peer", log, fail_at=3))
    failed = [entry for entry in forward.entries if entry.status == "failed"]
    assert [(entry.side, entry.why, entry.times) for entry in failed] == [
        ("peer", "its process ended with status -9", {})
    ]
    assert len(forward.entry(OURS, "NCHW").times["ms"]) == 4
    assert backward.ratio("peer").value == 1.0


def test_slow_rows_get_fewer_rounds_but_four():
    settings = Settings(rounds=50, row_seconds=10.0, memory=False)
    for round_seconds, rounds in ((0.001, 50), (0.5, 10), (60.0, 4)):
        forward, _ = compared(Pretender(OURS, [], round_seconds=round_seconds), settings=settings)
        assert len(forward.entries[0].times["ms"]) == rounds  # two formats to a round


def test_rounds_are_spread_over_processes_and_only_the_first_is_checked_and_metered():
    log = []
    settings = Settings(rounds=6, processes=3, memory=True)
    rows = compared(
        Pretender(OURS, log), Pretender("peer", log, spoil=["backward"], refuse=["NHWC"]), settings=settings
    )
    assert [note[1] for note in log if note[0] == "stop"] == [OURS, "peer"] * 2
    first, second, third = (len(entry.times["ms"]) for entry in rows[0].entries if entry.measured)
    assert first == second == third == 6
    for part in "".join(note[0][0] for note in log).split("ss"):  # warm, time and stop
        assert part.count("t") == (3 + 2) * 2  # entries forward and backward, two rounds each
    assert {entry.status for entry in rows[1].entries if entry.side == "peer"} == {"wrong", "not offered"}


def test_a_side_that_fails_when_started_again_leaves_the_others():
    class Once(Pretender):
        def stop(self):
            super().stop()
            self.refuse = ["NCHW"]

    forward, _ = compared(Once(OURS, []), Pretender("peer", []), settings=Settings(rounds=4, processes=2, memory=False))
    assert forward.entry(OURS, "NCHW").why == "knows no NCHW"
    assert forward.ratio("peer", "NCHW") is None
    assert forward.ratio("peer", "NHWC").value == 1.0


def test_one_thread_is_timed_by_turns_once_all_else_is():
    log = []
    alone = [Pretender(OURS, log, ms=3.0), Pretender("peer", log, ms=2.0)]
    rows = compared(Pretender(OURS, []), Pretender("peer", [], refuse=["NHWC"]), alone=alone)
    order = [(OURS, "NCHW"), (OURS, "NHWC"), ("peer", "NCHW")]
    expected = []
    for direction in ("forward", "backward"):
        expected += [("warm", *entry, direction) for entry in order]
        expected += [("processor_time", *entry, direction) for _ in range(4) for entry in (*order, *order[::-1])]
    assert log == expected
    for row in rows:
        assert row.entry(OURS, "NHWC").times == {"ms": [1.0] * 4, ONE_THREAD: [3.0] * 8}
        assert row.one_thread_ratio("peer", "NCHW") == row.one_thread_ratio("peer") == 1.5
        assert row.one_thread_ratio("peer", "NHWC") is None
        assert row.ratio("peer").value == 1.0


@pytest.mark.parametrize(("round_seconds", "rounds"), [(0.001, 8), (0.05, 5), (10.0, 3)])
def test_slow_rows_get_fewer_rounds_of_one_thread_but_three(round_seconds, rounds):
    alone = [Pretender(OURS, [], round_seconds=round_seconds)]
    forward, _ = compared(Pretender(OURS, []), alone=alone)
    assert len(forward.entry(OURS, "NCHW").times[ONE_THREAD]) == rounds  # two formats to a round


@pytest.mark.parametrize(
    ("trouble", "status", "why"),
    [
        ({"spoil": ["forward"]}, "wrong", "one thread: y off by "),
        ({"refuse": ["NCHW", "NHWC"]}, NOT_OFFERED, "one thread: knows no NCHW"),
        ({"fail_at": 1}, FAILED, "one thread: its process ended with status -9"),
    ],
)
def test_a_side_that_one_thread_is_too_few_for_is_named_and_not_compared(trouble, status, why):
    alone = [Pretender(OURS, []), Pretender("peer", [], **trouble)]
    forward, _ = compared(Pretender(OURS, []), Pretender("peer", []), alone=alone)
    entry = forward.entry("peer", "NCHW")
    assert (entry.status, entry.times) == (status, {})
    assert entry.why.startswith(why)
    assert len(forward.entry(OURS, "NCHW").times[ONE_THREAD]) == 8


def test_memory_is_asked_only_when_wanted():
    for wanted, expected in ((True, 1000), (False, None)):
        forward, backward = compared(Pretender(OURS, []), settings=Settings(rounds=2, memory=wanted))
        assert forward.entries[0].extra_bytes == expected
        assert backward.entries[0].extra_bytes is None


def test_a_run_names_what_is_missing_and_keeps_the_rest(monkeypatch):
    log, told = [], []
    monkeypatch.setattr(harness, "Side", lambda name, settings: Pretender(name, log, ms=2.0 if name == OURS else 1.0))
    real = peers.load

    def load(name):
        peer = real(name)
        monkeypatch.setattr(peer, "packages", ("no_such_package_anywhere",) if name == "torch" else ())
        return peer

    monkeypatch.setattr(peers, "load", load)
    result = harness.run([CASE], ["torch", "course"], QUICK, Noting(told))
    assert result.sides["torch"]["status"] == "not installed"
    assert result.sides["torch"]["why"] == "no package no_such_package_anywhere"
    assert result.peers() == ["course"]
    assert told == [
        ("peaks", result.peaks),
        ("case", "pretended"),
        *(("doing", what) for what in ("checking gpuconv", "checking course", "timing forward", "timing backward")),
        *(("row", row) for row in result.rows),
        ("end_case",),
    ]
    assert [row.ratio("course").value for row in result.rows] == [2.0, 2.0]
    assert {note[1] for note in log} == {OURS, "course"}
    assert log[-2:] == [("stop", OURS), ("stop", "course")]
    assert from_json(result.to_json()) == result


def _stopping(monkeypatch, stop_at, log):
    """Sides of which our own gets Ctrl-C when it is timed for the stop_at-th time; return the run."""

    class Stopping(Pretender):
        def ask(self, method, *arguments):
            if method == "time" and self.name == OURS and self.timed == stop_at:
                raise KeyboardInterrupt
            return super().ask(method, *arguments)

    monkeypatch.setattr(harness, "Side", lambda name, settings: Stopping(name, log))
    cases = [CASE, replace(CASE, name="second"), replace(CASE, name="third")]
    return lambda told: harness.run(cases, ["course"], QUICK, Noting(told))


class _Interrupted:
    """A pipe whose answer Ctrl-C comes before."""

    def __init__(self, pipe):
        self.send = pipe.send

    def recv(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop_at", [16, 17, 25, 31])
def test_ctrl_c_keeps_the_cases_that_are_done(monkeypatch, stop_at):
    """A case takes 4 rounds of 2 directions in 2 formats: 16 times."""
    log, told = [], []
    with pytest.raises(harness.CutShort) as cut:
        _stopping(monkeypatch, stop_at, log)(told)
    result = cut.value.result
    assert [(row.case, row.direction) for row in result.rows] == [("pretended", "forward"), ("pretended", "backward")]
    assert [row for what, *row in told if what == "row"] == [[row] for row in result.rows]
    assert result.settings["cut_short_of"] == 3
    assert tables.cut_short(result) == "cut short: 1 of 3 cases measured"
    assert tables.cut_short(result) in tables.facts(result)
    assert log[-2:] == [("stop", OURS), ("stop", "course")]
    assert from_json(result.to_json()) == result


def test_ctrl_c_before_any_case_is_done_is_ctrl_c(monkeypatch):
    log = []
    with pytest.raises(KeyboardInterrupt) as stopped:
        _stopping(monkeypatch, 15, log)([])
    assert type(stopped.value) is KeyboardInterrupt
    assert log[-2:] == [("stop", OURS), ("stop", "course")]


def test_a_side_that_works_on_an_answer_is_ended_at_once(monkeypatch):
    """It need not be waited for, and Ctrl-C of the terminal is not its own."""
    side = harness.Side("course", Settings(threads=1))
    side.ask("start")
    process = side._process
    os.kill(process.pid, signal.SIGINT)
    assert side.ask("prepare", CASE, "NCHW", "float32")
    with monkeypatch.context() as patched:
        patched.setattr(side, "_pipe", _Interrupted(side._pipe))
        with pytest.raises(KeyboardInterrupt):
            side.ask("time", "NCHW", "forward")
    side.stop()
    assert process.exitcode == -signal.SIGTERM


def test_a_run_of_one_thread_has_a_second_process_of_each_side_that_started(monkeypatch):
    made = []

    class Noted(Pretender):
        def __init__(self, name, settings):
            super().__init__(name, [])
            made.append((self, settings.threads))

        def ask(self, method, *arguments):
            if method == "start" and self.name == "scipy":
                raise SideError(FAILED, "ImportError: no scipy")
            return super().ask(method, *arguments)

    monkeypatch.setattr(harness, "Side", Noted)
    for name in ("course", "scipy"):
        monkeypatch.setattr(type(peers.load(name)), "packages", ())
    settings = Settings(threads=2, rounds=4, memory=False, one_thread=True)
    told = []
    result = harness.run([CASE], ["course", "scipy"], settings, Noting(told))
    assert ("doing", "timing one thread") in told
    assert [(side.name, threads) for side, threads in made] == [
        *((OURS, 2), ("course", 2), ("scipy", 2)),
        *((OURS, 1), ("course", 1)),
    ]
    assert all(("stop", side.name) in side.log for side, _ in made)
    assert result.has_one_thread
    assert from_json(result.to_json()) == result


def test_a_run_whose_own_side_does_not_start_says_so(monkeypatch):
    class Broken(Pretender):
        def ask(self, method, *arguments):
            raise SideError(FAILED, "ImportError: no numpy")

    monkeypatch.setattr(harness, "Side", lambda name, settings: Broken(name, []))
    with pytest.raises(SideError, match="gpuconv itself: ImportError: no numpy"):
        harness.run([CASE], [], QUICK, harness.Watch())


def test_a_side_lives_in_a_process_of_its_own(monkeypatch):
    monkeypatch.delenv("GPUCONV_THREADS", raising=False)
    side = harness.Side("course", Settings(threads=1))
    try:
        found = side.ask("prepare", CASE, "NCHW", "float32")
        references = oracle.references(inputs.draw(CASE))
        assert all(r.agrees(s) for d in references for r, s in zip(references[d], found[d], strict=True))
        assert side.ask("warm", "NCHW", "forward", 0.0) > 0
        assert side.ask("time", "NCHW", "forward")["ms"] > 0
        assert side.ask("processor_time", "NCHW", "forward") > 0
        with pytest.raises(SideError, match="knows NCHW only") as said:
            side.ask("prepare", CASE, "NHWC", "float32")
        assert said.value.status == "not offered"
        with pytest.raises(SideError, match="KeyError") as said:
            side.ask("time", "NHWC", "forward")
        assert said.value.status == "failed"
        columns = 4 * 18 * 16
        assert side.memory(CASE, "NCHW", "float32")["forward"] >= columns
        side._process.kill()
        side._process.join()
        with pytest.raises(SideError, match="its process ended with status -9"):
            side.ask("time", "NCHW", "forward")
        assert side.ask("prepare", CASE, "NCHW", "float32")  # started again
        process = side._process
    finally:
        side.stop()
    assert process.exitcode == 0
    assert "GPUCONV_THREADS" not in os.environ


def test_processes_get_threads_and_cores(monkeypatch):
    given = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 1, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: given.append(list(cores)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for name in ("GPUCONV_THREADS", "GPUCONV_COMPILED"):
        monkeypatch.delenv(name, raising=False)
    with harness._environment(2, {"GPUCONV_COMPILED": "0"}):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["GPUCONV_THREADS"] == "2"
        assert os.environ["GPUCONV_COMPILED"] == "0"
        assert given == [[1, 2]]
    assert given == [[1, 2], [1, 2, 3]]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert not {"GPUCONV_THREADS", "GPUCONV_COMPILED"} & os.environ.keys()


def test_numpy_alone_is_gpuconv_in_a_process_without_loops(monkeypatch):
    monkeypatch.delenv("GPUCONV_COMPILED", raising=False)
    monkeypatch.setattr(ours.NumPyAlone, "packages", ())
    side = harness.Side("gpuconv-numpy", Settings(threads=1))
    try:
        assert side.ask("start") == gpuconv_version()
        found = side.ask("prepare", CASE, "NCHW", "float32")
    finally:
        side.stop()
    references = oracle.references(inputs.draw(CASE))
    assert all(r.agrees(s) for d in references for r, s in zip(references[d], found[d], strict=True))


def test_other_work_is_what_the_cores_did_less_what_was_done_here(monkeypatch, tmp_path):
    """Ten seconds on cores 0 and 2: 8 s of work and 1.5 s not given on one, 3 s on the other, of which 4.5 are ours."""
    stat, clock = tmp_path / "stat", iter([100.0, 110.0])
    own = iter([(1.0, 1.0, 0.5, 0.0, 90.0), (2.0, 2.0, 2.0, 1.0, 100.0)])
    before = [
        "cpu 9 9 9 9 9 9 9 9 9 9",
        "cpu0 0 0 0 0 0 0 0 0 0 0",
        "cpu1 5 5 5 5 5 5 5 5 5 5",
        "cpu2 7 7 7 7 7 7 7 7 7 7",
    ]
    after = [
        "cpu 0 0",
        "cpu0 500 100 200 50 900 0 0 150 70 70",
        "cpu1 5 0 0 0 0 0 0 0 0 0",
        "cpu2 157 7 7 707 7 107 57 7 9 9",
    ]
    monkeypatch.setattr(load, "_STAT", stat)
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    monkeypatch.setattr(load.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(load.os, "times", lambda: next(own))
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    assert load.OtherWork().cores() is None  # a system without that file
    stat.write_text("\n".join(before))
    slept = []
    monkeypatch.setattr(load.time, "sleep", lambda seconds: (slept.append(seconds), stat.write_text("\n".join(after))))
    assert load.look() == pytest.approx((9.5 + 3.0 - 4.5) / 10)
    assert slept == [0.5]


class Counted:
    """A peer whose calls take so many milliseconds of a clock that only they move."""

    def __init__(self, *milliseconds):
        self.milliseconds, self.now, self.calls = list(milliseconds), 0.0, 0

    def call(self):
        self.now += (self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]) / 1e3
        self.calls += 1


@pytest.mark.parametrize(
    ("milliseconds", "calls", "count"),
    [
        ((100.0,), 1, 1),  # warm since `prepare`
        ((20.0, 10.0), 4, 6),  # the first is not yet
        ((70.0, 10.0), 1, 1),
    ],
)
def test_a_call_that_fills_a_round_is_warm_after_one_more(monkeypatch, milliseconds, calls, count):
    counted, one = Counted(*milliseconds), worker.Worker(None, "cpu", 1)
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: counted.now)
    one.clock, one.ready = clocks.HostClock(), {"NCHW": {"forward": counted.call}}
    one.warm("NCHW", "forward", 0.06)
    assert counted.calls == calls
    assert one.counts["NCHW", "forward"] == count


def test_processor_time_is_that_of_the_process(monkeypatch):
    counted, one = Counted(4.0), worker.Worker(None, "cpu", 1)
    monkeypatch.setattr(clocks.time, "process_time", lambda: counted.now)
    one.ready, one.counts = {"NCHW": {"forward": counted.call}}, {("NCHW", "forward"): 3}
    assert one.processor_time("NCHW", "forward") == pytest.approx(4.0)
    assert counted.calls == 3


def test_host_clock_takes_the_median_of_groups(monkeypatch):
    now = [0.0]
    durations = iter([1.0, 9.0, 2.0, 3.0, 4.0] * 2)
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now[0])
    calls = []

    def call():
        calls.append(None)
        now[0] += next(durations) / 1e3

    assert clocks.HostClock().round(call, 5)["ms"] == pytest.approx(3.0)
    assert clocks.HostClock().round(call, 1)["ms"] == pytest.approx(1.0)
    assert len(calls) == 6


def test_queue_clock_waits_for_the_last_call(monkeypatch):
    host, waited = [0.0], []

    def wait(result):
        waited.append(result)
        host[0] += 0.006

    def call():
        host[0] += 0.001
        return host[0]

    monkeypatch.setattr(clocks.time, "perf_counter", lambda: host[0])
    assert clocks.QueueClock(wait).round(call, 3)["ms"] == pytest.approx(3.0)
    assert waited == [0.003]


def test_event_clock_tells_launches_from_kernels(monkeypatch):
    """A pretended GPU: a launch takes 1 ms of the host, a kernel 3 ms of the device, a flush 20."""
    host, device = [0.0], [0.0]

    def launch(milliseconds):
        host[0] += 1.0
        device[0] = max(device[0], host[0]) + milliseconds

    class Event:
        def record(self):
            self.at = max(device[0], host[0])

        def synchronize(self):
            host[0] = max(host[0], self.at)

    monkeypatch.setattr(clocks.time, "perf_counter", lambda: host[0] / 1e3)
    clock = clocks.EventClock(Event, lambda first, last: last.at - first.at, lambda: launch(20.0))
    found = clock.round(lambda: launch(3.0), 10)
    assert found["launch_ms"] == pytest.approx(1.0)
    assert found["kernel_ms"] == pytest.approx(3.0)
    assert found["ms"] == pytest.approx(3.1)  # the first waits for its launch
    assert found["wall_ms"] == pytest.approx(3.1)


def test_extra_memory_is_the_peak_beyond_inputs_and_results():
    case = Case("y of 102,400 bytes", "relu", (1, 1, 160, 160))
    drawn = inputs.draw(case)
    kept = []

    def make_calls(given):
        scratch = np.ones(300_000, np.uint8)
        kept.append(np.ones(50_000, np.uint8))  # as a cache is
        y = np.zeros(case.y, np.float32)
        del scratch, y

        def backward():
            np.ones(200_000, np.uint8)
            return [np.zeros(10_000, np.uint8)]

        return {"backward": backward}

    meter = memory.numpy_meter()
    try:
        found = memory.extra(make_calls, drawn, meter)
    finally:
        memory.tracemalloc.stop()
    assert 340_000 < found["forward"] < 360_000
    assert 235_000 < found["backward"] < 260_000


def test_peaks_are_measured(monkeypatch):
    monkeypatch.setattr(peaks, "_CPU_SIZE", 64)
    monkeypatch.setattr(peaks, "_CPU_BYTES", 2**16)
    found = peaks.cpu_peaks(2)
    assert set(found) == {"GFLOP/s float32", "GB/s"}
    assert min(found.values()) > 0

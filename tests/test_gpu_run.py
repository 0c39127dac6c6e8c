"""bench/gpu_run.py without a GPU: it refuses clearly, and what needs no GPU works in the emulator."""

import json
import time

import pytest
from emulate import EmulatedDevice
from kernel_calls import CALLS, emulated_on, random_call

from bench import gpu_checks, gpu_run, gpu_timing, harness
from bench.cases import SETS, choose
from gpuconv import backend


def test_help_and_dry_run_need_no_gpu(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_run.main(["--help"])
    assert ended.value.code == 0
    assert gpu_run.main(["--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(section.name in shown for section in gpu_run.SECTIONS)


def test_sections_fit_into_eight_minutes():
    assert sum(section.seconds for section in gpu_run.SECTIONS) < 8 * 60
    assert gpu_run.parser().parse_args([]).limit < 8 * 60


def test_without_a_gpu_one_line_says_why(monkeypatch, capsys):
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (False, "CUDA finds no usable GPU"))
    assert gpu_run.main([]) == 3
    said = capsys.readouterr()
    assert said.err == "bench.gpu_run needs a GPU: CUDA finds no usable GPU\n"
    assert said.out == ""


def _without_processes(monkeypatch, results):
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (True, "1 GPU"))
    monkeypatch.setattr(gpu_run, "run_section", lambda section, *_: results[section.name])


def test_all_results_are_kept_and_one_failure_is_the_exit_status(monkeypatch, capsys, tmp_path):
    results = {section.name: {"ok": True, "seconds": 1.0} for section in gpu_run.SECTIONS}
    results["sanitizer"] = {"ok": None, "why": "not measured"}
    row = {"case": "relu", "dtype": "float32", "memory": "NCHW", "direction": "forward", "gpuconv_ms": 0.5}
    results["timings"]["rows"] = [{**row, "share of copy bandwidth": 0.8, "torch_ms": 0.25, "ratio": 2.0}]
    _without_processes(monkeypatch, results)
    out = tmp_path / "new" / "result.json"
    assert gpu_run.main(["--out", str(out)]) == 0
    assert json.loads(out.read_text())["sections"] == results
    assert "80% of copying  torch" in capsys.readouterr().out
    results["large"] = {"ok": False, "why": "wrong"}
    assert gpu_run.main(["--out", str(out), "--only", "large"]) == 1
    assert list(json.loads(out.read_text())["sections"]) == ["large"]


def test_out_goes_to_the_folder_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    _without_processes(monkeypatch, {"machine": {"ok": True}})
    assert gpu_run.main(["--only", "machine"]) == 0
    assert (tmp_path / "gpu_run.json").exists()


def test_a_section_that_raises_says_what(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_run, "gpu_status", lambda: (True, "1 GPU"))

    def fails(arguments, seconds):
        msg = "no such thing"
        raise RuntimeError(msg)

    monkeypatch.setattr(gpu_run, "SECTIONS", [gpu_run.Section("broken", 5, "fails", fails)])
    out = tmp_path / "result.json"
    assert gpu_run.main(["--child", "broken", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["ok"] is False
    assert result["why"] == "RuntimeError: no such thing"
    assert "fails(arguments, seconds)" in result["trace"] or "in fails" in result["trace"]


def test_a_section_whose_process_dies_is_a_failure(monkeypatch):
    section = gpu_run.Section("no such section", 20, "", lambda arguments, seconds: {})
    result = gpu_run.run_section(section, [], time.monotonic(), 100)
    assert result["ok"] is False
    assert "ended with status" in result["why"]


def test_no_time_left_is_not_a_failure():
    section = gpu_run.SECTIONS[0]
    assert gpu_run.run_section(section, [], time.monotonic() - 100, 100)["ok"] is None


def test_pytest_s_counts_are_read():
    found = gpu_run.counts_of("FAILED tests/a.py::b\n3 failed, 120 passed, 4 skipped in 3.2s\n")
    assert found == {"failed": 3, "passed": 120, "skipped": 4, "failures": ["FAILED tests/a.py::b"]}


def test_each_tool_of_the_sanitizer_has_a_planted_fault():
    assert set(gpu_checks.FAULTS) == {"memcheck", "racecheck", "initcheck", "synccheck"}


def test_without_the_sanitizer_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(gpu_checks, "sanitizer", lambda: None)
    assert gpu_checks.sanitize(10)["ok"] is None


@pytest.mark.parametrize(
    ("control", "tools", "said"),
    [(86, 0, "clean"), (0, 0, "planted fault was not noticed"), (86, 86, "out of bounds")],
    ids=["clean", "blind_tool", "fault_found"],
)
def test_a_tool_counts_only_if_it_sees_its_planted_fault(control, tools, said, monkeypatch):
    def watched(program, tool, child, seconds):
        return (control if child.startswith("fault") else tools), "========= out of bounds"

    monkeypatch.setattr(gpu_checks, "sanitizer", lambda: "compute-sanitizer")
    monkeypatch.setattr(gpu_checks, "_watched", watched)
    result = gpu_checks.sanitize(100)
    assert result["ok"] is (said == "clean")
    assert all(said in found for found in result["tools"].values())


@pytest.mark.compilers
def test_random_cases_and_repeats_in_the_emulator(monkeypatch):
    calls = [(CALLS["relu_rows"], "NCHW"), (CALLS["sgd"], "NHWC")]
    monkeypatch.setattr(gpu_checks, "_quick", lambda: calls)
    with emulated_on(EmulatedDevice("emulated")) as place:
        assert gpu_checks.random_cases(place, 3, 60) == {"cases": 3, "asked": 3, "failed": [], "ok": True}
        repeated = gpu_checks.repeats(place, 3, 60)
    assert repeated == {"calls": 2, "of": 2, "times each": 3, "changed": [], "ok": True}


def test_a_wrong_result_is_named():
    class Wrong:
        array = staticmethod(lambda a: a)
        numpy = staticmethod(lambda a: a + a.dtype.type(1))

    result = gpu_checks.random_cases(Wrong, 2, 60)
    assert not result["ok"]
    assert result["failed"][0].startswith("random_call(0), ")


def test_random_calls_agree_with_the_oracle_on_the_cpu():
    class Host:
        array = staticmethod(lambda a: a)
        numpy = staticmethod(lambda a: a)

    result = gpu_checks.random_cases(Host, 60, 60)
    assert result["failed"] == []
    assert len({random_call(seed)[0].run.__qualname__ for seed in range(60)}) >= 6


def test_timings_measure_until_the_time_is_spent(monkeypatch):
    here = gpu_timing.Here
    monkeypatch.setattr(gpu_timing, "Here", lambda name: here(name, "cpu"))
    monkeypatch.setattr(gpu_timing.worker.Worker, "peaks", lambda self: {"GB/s": 10.0})
    monkeypatch.setitem(SETS, "readme", choose("quick", ("relu",)))
    monkeypatch.setattr(backend, "_chosen", backend._chosen)  # which a side changes
    monkeypatch.setattr(harness, "_ROUND_SECONDS", 0.001)
    monkeypatch.setattr(harness, "_REST_SECONDS", 0)
    found = gpu_timing.timings(60)
    ours = [(row["dtype"], row["memory"], row["direction"]) for row in found["rows"]]
    assert len(ours) == len(set(ours)) == 8
    assert all(row["gpuconv_ms"] > 0 and row["share of copy bandwidth"] > 0 for row in found["rows"])
    assert gpu_timing.timings(-1)["left out, time was spent"] == [
        "quick relu 8, 16x16 float32",
        "quick relu 8, 16x16 float16",
    ]

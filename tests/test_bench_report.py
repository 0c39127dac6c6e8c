"""bench/results.py, tables.py, report.py, picture.py and the command: what is said of a run."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bench import conftest as bench_options
from bench import harness, peers, report, results, tables
from bench.results import OURS, Entry, Ratio, Result, Row
from gpuconv import cli
from gpuconv.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def entry(side, layout, *ms, **rest):
    return Entry(side, layout, times={"ms": list(ms)}, **rest)


@pytest.fixture
def result():
    """Two cases: a convolution beside two peers, one of them wrong backward, and a step of training."""
    forward = Row("conv a", "conv", "forward", "float32", 4, 2_000_000, 1_000_000)
    forward.entries = [
        entry(OURS, "NCHW", 4.0, 4.0, 8.0, error=2e-7, extra_bytes=1_500_000),
        entry(OURS, "NHWC", 2.0, 2.0, 2.0, error=3e-7, extra_bytes=0),
        entry("torch", "NCHW", 1.0, 1.0, 1.0, error=1e-7),
        entry("torch", "NHWC", 4.0, 5.0, 4.0, error=1e-7),
        entry("course", "NCHW", 20.0, 20.0, 20.0, error=1e-7),
        Entry("course", "NHWC", "not offered", "knows NCHW only"),
    ]
    backward = Row("conv a", "conv", "backward", "float32", 4, 4_000_000, 2_000_000)
    backward.entries = [
        entry(OURS, "NCHW", 6.0, 6.0, 6.0, error=2e-7),
        entry(OURS, "NHWC", 9.0, 9.0, 9.0, error=2e-7),
        Entry("torch", "NCHW", "wrong", "dx off by 1.0e+00", error=1.0),
        entry("torch", "NHWC", 3.0, 3.0, 3.0, error=1e-7),
        entry("course", "NCHW", 6.0, 6.0, 6.0),
        Entry("course", "NHWC", "not offered", "knows NCHW only"),
    ]
    step = Row("train b", "train_step", "step", "float32", 128, 0, 0)
    step.entries = [entry(OURS, "NCHW", 64.0, 64.0, 64.0), entry("torch", "NCHW", 32.0, 32.0, 32.0)]
    sides = {
        name: {"label": label, "version": "1.0", "status": "measured", "why": ""}
        for name, label in ((OURS, "gpuconv"), ("torch", "PyTorch"), ("course", "course im2col"))
    }
    sides["jax"] = {"label": "JAX", "version": "", "status": "not installed", "why": "no package jax, jaxlib"}
    machine = {"processor": "Abacus", "cores": 2, "threads": 2, "numpy": "2.0", "date": "2026-01-02"}
    peaks = {"GFLOP/s float32": 2.0, "GB/s": 2.0}
    return Result(machine, {"set": "readme"}, peaks, sides, [forward, backward, step])


def test_ratios_are_those_of_medians_with_the_spread_of_rounds(result):
    forward = result.rows[0]
    assert forward.ratio("torch", "NCHW") == Ratio(4.0, 4.0, 8.0)
    assert forward.ratio("torch", "NHWC") == Ratio(0.5, 0.4, 0.5)
    assert forward.ratio("torch") == Ratio(2.0, 2.0, 2.0)  # NHWC against NCHW
    assert forward.ratio("course", "NHWC") is None
    assert result.rows[1].ratio("torch") == Ratio(2.0, 2.0, 2.0)
    many = Row(
        "", "relu", "forward", "float32", 1, 0, 1, [entry(OURS, "NCHW", *range(1, 21)), entry("t", "NCHW", *[1] * 20)]
    )
    assert many.ratio("t") == Ratio(10.5, 3.0, 18.0)  # two of twenty rounds lie outside on either side


def test_summaries_are_geometric_means_and_worsts(result):
    torch = result.summary("torch", "float32")
    assert torch.rows == 3
    assert torch.best_mean == pytest.approx(2.0)
    assert torch.best_worst == 2.0
    assert torch.same_mean == pytest.approx((4.0 * 0.5 * 3.0 * 2.0) ** 0.25)
    assert (torch.same_least, torch.same_worst) == (0.5, 4.0)
    assert result.summary("jax", "float32") is None
    assert result.summary("torch", "float16") is None
    assert result.peers() == ["torch", "course"]


def test_rates_and_shares_of_the_peaks(result):
    forward, _, step = result.rows
    assert forward.rate(2.0) == (1.0, "GFLOP/s")
    assert step.rate(64.0) == (2000.0, "images/s")
    assert Row("", "relu", "forward", "float32", 1, 0, 3_000_000).rate(1.0) == (3.0, "GB/s")
    assert result.share(forward, 2.0) == pytest.approx(0.5)  # 1 ms to multiply, 0.5 to move
    assert result.share(step, 64.0) is None
    result.peaks = {"GB/s": 2.0}
    assert result.share(forward, 2.0) is None


def test_json_keeps_everything(result, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text(result.to_json())
    assert results.read(path) == result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values.update(schema=0), "not a result of this version's benchmarks"),
        (lambda values: values.pop("rows"), "is not a benchmark result: 'rows'"),
        (lambda values: values.update(other=1), "unexpected keyword argument 'other'"),
        (lambda values: values["rows"][0]["entries"][0].update(status="fast"), "gpuconv is 'fast' with times"),
        (lambda values: values["rows"][0]["entries"][0].update(times={}), "gpuconv is 'measured' with times {}"),
        (lambda values: values["rows"][1]["entries"][2].update(times={"ms": [1]}), "torch is 'wrong' with times"),
    ],
)
def test_other_json_is_refused(result, change, said):
    values = json.loads(result.to_json())
    change(values)
    with pytest.raises(ConfigError, match=said):
        results.from_json(json.dumps(values))


def test_what_is_no_json_is_refused():
    with pytest.raises(ConfigError, match=r"x\.json is not a benchmark result"):
        results.from_json("[]", "x.json")
    with pytest.raises(ConfigError, match="the file is not a benchmark result"):
        results.from_json("<html>")


def test_the_terminal_shows_a_line_for_each_format(result):
    nchw, nhwc = tables.lines(result.rows[0], ["torch", "course", "jax"])
    assert nchw.split() == [
        *("conv", "a", "forward", "float32", "NCHW", "4.000", "0.5", "GFLOP/s", "2e-07", "1.5"),
        *("1.000", "4.00", "(4.00-8.00)", "20.000", "0.20", "(0.20-0.40)", "-"),
    ]
    assert "not offered" in nhwc
    backward = tables.lines(result.rows[1], ["torch"])[0]
    assert backward.split()[-1] == "wrong"
    assert len(tables.head([OURS, "torch"])) > 80


def test_facts_name_what_a_table_leaves_out(result):
    said = "\n".join(tables.facts(result))
    assert "JAX: not installed: no package jax, jaxlib" in said
    assert "wrong: PyTorch, conv a backward, NCHW, float32: dx off by 1.0e+00" in said
    assert "best format against best format 2.00 in geometric mean, worst 2.00" in said


def test_the_readme_s_table_shows_best_formats(result):
    table = tables.best_table(result).splitlines()
    assert table[0].startswith("Abacus, 2 threads, NumPy 2.0, PyTorch 1.0, course im2col 1.0, 2026-01-02; float32.")
    assert (
        "| conv a | 2.00 / 6.00 | 1 / 1 GFLOP/s | 50% / 33% | 1.00 / 3.00 | 2.00 / 2.00 | 20.00 / 6.00 | 0.10 / 1.00 |"
        in table
    )
    assert "| train b | 64.00 | 2000 images/s |  | 32.00 | 2.00 |  |  |" in table


def test_the_full_table_has_every_format_and_peer(result):
    text = tables.full_table(result)
    rows = [line for line in text.splitlines() if line.startswith(("| conv", "| train"))]
    assert len(rows) == 5
    assert {line.count(" | ") for line in rows} == {8 + 3 * 3}
    assert "| 0.50 (0.40-0.50) |" in text
    assert "| wrong |" in text


@pytest.fixture
def folder(result, tmp_path, monkeypatch):
    """A checkout with a README, runs of training, and two results, of which the second is newer."""
    kept = tmp_path / "bench" / "results"
    kept.mkdir(parents=True)
    shutil.copy(ROOT / "README.md", tmp_path)
    for path in (ROOT / "bench" / "results").glob("train-*.json"):
        shutil.copy(path, kept)
    (kept / "operators-cpu-2026-01-02.json").write_text(result.to_json())
    result.machine["processor"] = "Slide rule"
    (kept / "operators-cpu-2026-01-03.json").write_text(result.to_json())
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", kept)
    return tmp_path


def test_the_report_writes_tables_and_pictures_and_then_has_nothing_to_say(folder, capsys):
    pytest.importorskip("matplotlib")
    assert report.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "bench/results/operators-cpu-2026-01-03.md" in said
    assert said.endswith(": stale, run python -m bench.report\n")
    assert report.main([]) == 0
    readme = (folder / "README.md").read_text()
    assert "Slide rule" in readme
    assert "Abacus" not in readme
    assert "(bench/results/operators-cpu-2026-01-03.png)" in readme
    assert report.main(["--check"]) == 0
    (folder / "README.md").write_text(readme.replace("64.00", "63.00"))
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().err == "README.md: stale, run python -m bench.report\n"
    picture = folder / "bench" / "results" / "operators-cpu-2026-01-03.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_committed_tables_are_those_of_the_committed_results():
    assert report.stale() == []
    for kept in report.RESULTS.glob("operators-*.json"):
        assert kept.with_suffix(".png").exists()


def test_a_picture_has_a_panel_for_each_peer_and_a_dot_for_each_ratio(result, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from bench import picture

    drawn = []
    monkeypatch.setattr(picture.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    picture.draw(result, tmp_path / "x.png")
    (figure,) = drawn
    assert [panel.get_title() for panel in figure.axes] == ["gpuconv / PyTorch", "gpuconv / course im2col"]
    assert all(panel.get_xscale() == "log" for panel in figure.axes)
    dots = {marks.get_label(): list(marks.lines[0].get_xdata()) for marks in figure.axes[0].containers}
    assert dots == {"forward": [2.0], "backward": [2.0], "step": [2.0]}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["conv a", "train b"]
    result.rows.clear()
    picture.draw(result, tmp_path / "x.png")
    assert len(drawn) == 1


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(capsys, monkeypatch):
    """Run `gpuconv bench`; return (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        code = cli.main(["bench", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "fast"], "there is no set 'fast': choose one of readme, course"),
        (
            ["--ops", "conv,pool"],
            "there is no operator 'pool' among the cases: choose from affine, average_pool, batchnorm, conv",
        ),
        (["--only", "99x99"], "the set readme has no case of any operator with '99x99' in its name"),
        (["--peers", "torch,tf"], "there is no peer 'tf': choose from self, torch"),
        (["--peers", "cupy-im2col"], "the peer cupy-im2col runs on cuda, not on cpu"),
        (["--regimes", "bf16"], "there is no regime 'bf16': choose from float32, tf32, float16"),
        (["--threads", "0"], "threads must be from 1 to "),
        (["--threads", "100000"], "threads must be from 1 to "),
        (["--rounds", "1"], "rounds must be at least 2, so that both orders occur, got 1"),
        (["--save", "no/such/folder/x.json"], "--save: there is no folder no/such/folder"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    ],
)
def test_what_cannot_be_used_ends_with_2(bench, arguments, said):
    code, out, err = bench(*arguments)
    assert code == 2
    assert out == ""
    assert said in err


def test_a_gpu_that_is_not_there_ends_with_1(bench, monkeypatch):
    from gpuconv.cuda import device

    monkeypatch.setattr(device, "gpu_status", lambda: (False, "CuPy is not installed"))
    code, _, err = bench("--device", "cuda")
    assert code == 1
    assert "CuPy is not installed" in err


def test_outside_a_checkout_it_says_where_the_benchmarks_are(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.bench, "__file__", str(tmp_path / "gpuconv" / "cli" / "bench.py"))
    code, _, err = bench()
    assert code == 2
    assert err == (
        "gpuconv: error: gpuconv bench needs a checkout of the source: "
        "the folder bench/ is not part of the installed package\n"
    )


def test_the_list_shows_all_there_is(bench):
    code, out, _ = bench("--list")
    assert code == 0
    assert "conv three-layer 7x7, 3->32, 32x32" in out
    assert "operators: affine, average_pool, batchnorm, conv" in out
    assert all(f"\n  {name} " in out for name in peers.MODULES if name != OURS)


def test_a_run_prints_its_table_and_keeps_its_json(bench, monkeypatch, tmp_path, result):
    given = {}

    def run(cases, names, settings, say):
        given.update(cases=[case.name for case in cases], names=names, settings=settings)
        for row in result.rows:
            say(row)
        return result

    monkeypatch.setattr(harness, "run", run)
    kept = tmp_path / "kept.json"
    code, out, err = bench(
        *("--set", "quick", "--ops", "relu,gelu", "--peers", "torch", "--threads", 1, "--rounds", 3, "--no-memory"),
        *("--save", kept),
    )
    assert (code, err) == (0, "")
    assert given["cases"] == ["quick relu 8, 16x16", "quick gelu 8, 16x16"]
    assert given["names"] == ["torch"]
    assert given["settings"] == harness.Settings("cpu", 1, 3, memory=False)
    assert "conv a" in out
    assert out.endswith(f"kept in {kept}\n")
    assert results.read(kept).settings == {"set": "quick", "ops": ["relu", "gelu"], "only": ""}


def test_a_run_that_cannot_start_ends_with_1(bench, monkeypatch):
    def run(*_):
        raise harness.SideError(results.FAILED, "gpuconv itself: no memory")

    monkeypatch.setattr(harness, "run", run)
    code, _, err = bench("--set", "quick", "--peers", "torch")
    assert (code, err) == (1, "gpuconv: error: gpuconv itself: no memory\n")


def test_pytest_bench_runs_each_case_once():
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "--benchmark-disable"]
    chosen = ["--bench-ops", "relu", "--bench-peers", "course", "--bench-device", "cpu"]
    run = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "6 passed, 2 skipped" in run.stdout  # the course knows one format


def test_pytest_bench_refuses_a_set_that_is_not_there():
    """With pytest's own error for what was asked wrongly."""
    options = {"--bench-set": "fast", "--bench-ops": "", "--bench-peers": "", "--bench-device": "cpu"}
    asked = types.SimpleNamespace(fixturenames=["direction"], config=types.SimpleNamespace(getoption=options.get))
    with pytest.raises(pytest.UsageError, match="there is no set 'fast'"):
        bench_options.pytest_generate_tests(asked)

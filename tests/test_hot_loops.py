"""The hot loops of the tiled convolutions are what tests/ladder/hot_loops.json says, and how the model reads them."""

import json
import re

import pytest
from emulate.control_flow import hottest_turn
from emulate.nvrtc import nvrtc
from emulate.sass import Line

from gpuconv.cuda import conv_tiles
from tests.ladder import hot_loops, loop_tables
from tests.ladder.hot_loops import Loop

RECORDED = hot_loops.recorded()
ANEW = "write the table anew: python -m tests.ladder.hot_loops --write"


def _held(chosen):
    """Compile kernels, given by architecture and name, and hold their loops to the table."""
    if RECORDED["nvrtc"] != nvrtc().version:
        pytest.skip(f"the table was written with NVRTC {RECORDED['nvrtc']}, this is {nvrtc().version}")
    measured = hot_loops.measure(chosen)
    kept = {name: {arch: RECORDED["rows"][name][arch] for arch in of_archs} for name, of_archs in measured.items()}
    lines = loop_tables.differences(kept, measured)
    assert not lines, "\n".join([*lines, ANEW])


@pytest.mark.compilers
def test_a_loop_of_each_kernel_is_as_recorded():
    """Tiles, dtypes and memory formats take turns, on sm_90, where FFMA bounds no loop; the ladder looks at all."""
    of_kernel = {}
    for name, one in hot_loops.instances().items():
        of_kernel.setdefault(one.kernel.name, []).append((name, one))
    _held({"90": dict(several[(4 + 3 * i) % len(several)] for i, several in enumerate(of_kernel.values()))})


@pytest.mark.ladder
@pytest.mark.compilers
def test_loops_are_as_recorded():
    _held(dict.fromkeys(loop_tables.ARCHS, hot_loops.instances()))


def test_the_table_has_every_kernel_tile_dtype_and_format():
    assert list(RECORDED["rows"]) == list(hot_loops.instances()), ANEW
    for name, of_archs in RECORDED["rows"].items():
        assert tuple(of_archs) == loop_tables.ARCHS, name


def test_the_table_is_possible():
    """A thread's product of a step reads its numbers in packs of 4; a warp needs 2 cycles at least for each."""
    for name, one in hot_loops.instances().items():
        of = {key: value for (_, key), value in zip(one.kernel.signature.templates, one.templates, strict=True)}
        height, width = of["HEIGHT"], of["WIDTH"]
        for arch, loop in RECORDED["rows"][name].items():
            assert loop.ffma == height * width * of["DEPTH"], name
            assert loop.shared_loads >= (height + width) / 4 * of["DEPTH"], name
            assert loop.shared_cycles >= 2 * loop.shared_loads, name
            assert loop.global_loads >= 2, name
            others = loop.shared_loads + loop.shared_stores + loop.global_loads
            assert loop.instructions > loop.ffma + others, name
            assert 0 < loop.shares(arch)[1] < loop.shares(arch)[0] <= 1, name


def test_tiles_are_chosen_by_their_shares():
    """What launchers know of each tile: channels last, in packs, on sm_90; of two kernels that use it, the mean."""
    kernels = {
        conv_tiles.Tile: (
            "conv_forward_tiled<float, true, true, false, {}>",
            "conv_backward_data_tiled<float, true, true, {}>",
        ),
        conv_tiles.WeightTile: ("conv_backward_weight_tiled<float, true, true, true, {}>",),
    }
    for tile, share in (*conv_tiles.SHARES.items(), *conv_tiles.WEIGHT_SHARES.items()):
        names = [name.format(", ".join(map(str, tile))) for name in kernels[type(tile)]]
        shares = [RECORDED["rows"][name]["90"].shares("90")[0] for name in names]
        assert share == pytest.approx(sum(shares) / len(shares), abs=0.015), tile
    assert hot_loops._KEPT.items() >= conv_tiles.KEPT.items()


def test_packs_of_both_sides_come_in_two_passes():
    """8 rows of 2 + 2 packs of 16 bytes, which pairs of lanes share; 4 numbers and 1 pack stored, in 1 and 4 passes."""
    loop = RECORDED["rows"]["conv_forward_tiled<float, true, true, false, 128, 128, 8, 8, 8>"]["90"]
    assert loop.shared_cycles == 8 * (2 * 2 + 2 * 2) + 4 * 1 + 4


# The model -----------------------------------------------------------------------------------------------------------

ISSUE = Loop(400, 256, 24, 5, 2, 72, 96, 2)


@pytest.mark.parametrize(
    ("loop", "arch", "bound", "shares"),
    [
        (ISSUE, "90", (100, "issue"), (0.64, 0.48)),
        (ISSUE._replace(shared_cycles=128), "90", (128, "shared"), (0.5, 0.375)),
        (ISSUE._replace(instructions=256, shared_cycles=60, blocks=5), "90", (64, "issue"), (1.0, 0.78)),
        (ISSUE, "80", (128, "FFMA"), (1.0, 0.75)),
        (ISSUE._replace(blocks=1), "80", (128, "FFMA"), (1.0, 0.5)),
    ],
)
def test_the_largest_of_the_cycles_is_the_bound(loop, arch, bound, shares):
    assert loop.bound(arch) == bound
    assert loop.shares(arch) == pytest.approx(shares)


def test_three_percent_of_the_bound_are_let_pass():
    before = {"a": {"80": ISSUE, "90": ISSUE}, "gone": {"90": ISSUE}}
    now = {"a": {"80": ISSUE._replace(instructions=500), "90": ISSUE._replace(instructions=412)}, "new": {}}
    assert loop_tables.differences(before, now) == ["new: new", "gone: gone"]
    now["a"]["90"] = ISSUE._replace(instructions=413)
    now["a"]["80"] = ISSUE._replace(shared_cycles=140)
    assert loop_tables.differences(before, now)[2:] == [
        "a, sm_80: 140.0 cycles (shared), recorded 128.0 (FFMA): more",
        "a, sm_90: 103.2 cycles (issue), recorded 100.0 (issue): more",
    ]
    now["a"] = {"90": ISSUE._replace(instructions=380)}
    assert loop_tables.differences(before, now)[2:] == [
        "a, sm_90: 95.0 cycles (issue), recorded 100.0 (issue): less, which is to be recorded",
    ]


def test_a_request_narrower_than_its_line_takes_its_share():
    cycles = {"shared load": {"a.cu:1": (4.0, 16.0)}, "shared store": {}}
    assert [
        hot_loops._request("k", Line(opcode, "", "", "a.cu:1"), cycles) for opcode in ("LDS.128", "LDS.64", "LDS")
    ] == [4, 2, 1]
    with pytest.raises(ValueError, match=r"k: STS of a\.cu:1, where the emulator saw no shared store"):
        hot_loops._request("k", Line("STS", "", "", "a.cu:1"), cycles)


def test_the_table_is_written_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(hot_loops, "TABLE", tmp_path / "table.json")
    hot_loops.TABLE.write_text(loop_tables.dumped(RECORDED))
    assert hot_loops.recorded() == RECORDED
    assert json.loads(hot_loops.TABLE.read_text())["columns"] == list(hot_loops.COLUMNS)


def test_what_is_recorded_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hot_loops", "--show"])
    assert hot_loops.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| `conv_") for line in lines) == len(loop_tables.ARCHS) * len(RECORDED["rows"])


# The path through a loop ---------------------------------------------------------------------------------------------


def _turn(text):
    """Return the opcodes of the hottest turn of lines such as "1:", "FFMA", "@P0 BRA 1"."""
    code = []
    for line in text.split("; "):
        guard, opcode, operands = re.fullmatch(r"(?:@(\S+) )?([A-Z]*)(.*)", line).groups(default="")
        operands = re.sub(r"\b(\d+)\b:?", r".L_x_\1", operands.strip())
        code.append(Line(opcode, operands, guard))

    def weight(lines):
        return sum(line.opcode == "FFMA" for line in lines), -len(lines)

    return " ".join(line.opcode for line in hottest_turn(code, lambda line: line.opcode == "FFMA", weight))


@pytest.mark.parametrize(
    ("code", "turn"),
    [
        ("1:; @P0 BRA 2; FFMA; BRA 3; 2:; IADD; 3:; @P1 BRA 1; EXIT", "BRA FFMA BRA BRA"),
        ("1:; FFMA; @P0 BRA 2; IADD; 2:; @P1 BRA 1; EXIT", "FFMA BRA BRA"),
        ("1:; @P0 EXIT; FFMA; @P1 BRA 1; EXIT", "EXIT FFMA BRA"),
        ("1:; @P0 BRA 3; IADD; 2:; @P1 BRA 1; EXIT; 3:; FFMA; BRA 2", "BRA FFMA BRA BRA"),
        ("1:; BRA P2, 3; IADD; 2:; @P1 BRA 1; EXIT; 3:; FFMA; BRA 2", "BRA FFMA BRA BRA"),
        ("1:; IADD; 2:; FFMA; @P0 BRA 2; @P1 BRA 1; EXIT", "FFMA BRA"),
        ("1:; IADD; @P0 BRA 1; 2:; FFMA; FFMA; @P1 BRA 2; EXIT; 3:; BRA 3", "FFMA FFMA BRA"),
        ("1:; FFMA; @P0 BRA 1; IADD; @P1 BRA 1; EXIT", "FFMA BRA"),
        ("FFMA; @P0 BRA 1; FFMA; 1:; EXIT", ""),
    ],
)
def test_a_turn_goes_the_heaviest_way(code, turn):
    assert _turn(code) == turn

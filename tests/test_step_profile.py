"""bench/step_profile.py: every layer is timed in both directions, and the parts come to no more than the step."""

import json

import pytest

from bench import step_profile


@pytest.mark.parametrize("preset", ["convnet", "speedrun"])
def test_every_layer_has_its_time(preset, tmp_path, capsys):
    path = tmp_path / "profile.json"
    assert step_profile.main(["--preset", preset, "--batch-size", "2", "--rounds", "3", "--save", str(path)]) == 0
    found = json.loads(path.read_text())
    directions = [part.rsplit(" ", 1) for part in found["parts_ms"] if part != "optimiser"]
    forward = {name for name, direction in directions if direction == "forward"}
    backward = {name for name, direction in directions if direction == "backward"}
    assert forward >= backward  # nothing is computed in front of the first parameters
    assert len(forward) > 10
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith(f"{preset}, batch 2: ")
    assert len(rows) == len(found["parts_ms"]) + 1
    assert rows[-1].startswith("all else")

"""Tables made from the package while the site is built: flags of commands, presets, kinds of layers, counts of the ladder.

```{flags} train       the flags of `gpuconv train`, from the parser that prints --help
```{commands}          the same of every command but train, under a heading each
```{presets}           what each preset changes
```{layer-kinds}       the layers that a .toml file may name, and their settings
```{mutants}           what was broken on purpose in each kernel file, and what noticed
```{resources}         registers and shared memory of each kernel
```{torch-samples}     how many of PyTorch's own samples are right, and what is refused
```{onnx-cases}        the same of ONNX's own cases, operator by operator
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gpuconv import cli, nn
from gpuconv.runs.settings import PRESETS

_ROOT = Path(__file__).resolve().parents[2]
LADDER = _ROOT / "tests" / "ladder"
RESULTS = _ROOT / "bench" / "results"


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in cells]


# Commands -----------------------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command, by its name: "train", "data get"."""
    return dict(_below(cli._parser(), ""))


def _below(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                full = f"{name} {word}".strip()
                found += _below(inner, full) or [(full, inner)]
    return found


def flags(name: str) -> list[str]:
    """Return what a command's --help says, as Markdown."""
    parser = commands()[name]
    lines = [f"```text\n{_usage(parser)}\n```", "", _sentences(parser.description or ""), ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if actions:
            title = (group.title or "").removesuffix("s") if group.title == "options" else group.title
            rows = [[_names(action), _sentences(action.help or "")] for action in actions]
            lines += ["", *table([title or "", "meaning [value where it is left out]"], rows)]
    return "\n".join(lines).split("\n")


def every_command() -> list[str]:
    """Return a paragraph and the flags of every command but train, which has a page of its own."""
    lines = ["`gpuconv train` stands under [training](../training.md#every-setting)."]
    for name in commands():
        if name != "train":
            lines += ["", f"**gpuconv {name}**", "", *flags(name)]
    return lines


def _usage(parser: argparse.ArgumentParser) -> str:
    return re.sub(r"^usage: ", "", parser.format_usage()).rstrip()


def _names(action: argparse.Action) -> str:
    """Return an argument as it is typed."""
    metavar = action.metavar or (action.dest if not action.option_strings else action.dest.upper())
    value = "" if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction) else str(metavar)
    return f"`{' '.join(filter(None, (', '.join(action.option_strings), value)))}`"


def _sentences(text: str) -> str:
    """Return a help text as Markdown that shows it as it is."""
    return re.sub(r"([\\*_`<>\[\]])", r"\\\1", " ".join(text.replace("%%", "%").split()))


def presets() -> list[str]:
    """Return the settings of each preset that differ from the first one's."""
    base, *others = PRESETS.values()
    rows = [[f"`{base.preset}`", "what stands in brackets in the tables below"]]
    for preset in others:
        changed = {name: value for name, value in vars(preset).items() if value != getattr(base, name)}
        del changed["preset"]
        rows.append([f"`{preset.preset}`", "; ".join(f"`{name} = {value!r}`" for name, value in changed.items())])
    return table(["preset", "its settings"], rows)


# Nets ---------------------------------------------------------------------------------------------------------------


def layer_kinds() -> list[str]:
    """Return the layers of .toml files, with the settings of each and their defaults."""
    rows = []
    for kind, cls in nn.kinds().items():
        sentence = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
        rows.append([f"`{kind}`", ", ".join(_settings(cls)), _sentences(sentence)])
    return table(["kind", "settings", "what"], rows)


def _settings(cls: type[nn.Layer]) -> list[str]:
    parameters = list(inspect.signature(cls).parameters.values())
    return [f"`{one.name}`" if one.default is one.empty else f"`{one.name} = {one.default!r}`" for one in parameters]


# The ladder ---------------------------------------------------------------------------------------------------------


def _read(name: str) -> Any:
    return json.loads((LADDER / name).read_text(encoding="utf-8"))


def mutants() -> list[str]:
    """Return how many small changes of each kernel file were tried and noticed; long files are tried by a sample."""
    score = _read("mutation_score.json")
    keys = ("places", "mutants", "noticed")
    rows = [[f"`{file}`", *(f"{one[key]:,}" for key in keys)] for file, one in score.items()]
    total = [f"{sum(one[key] for one in score.values()):,}" for key in keys]
    return table(["file", "places", "broken", "noticed"], [["all", *total], *rows])


def resources() -> list[str]:
    """Return the most registers and shared memory that any instance of each kernel takes."""
    most: dict[str, dict[str, tuple[int, int]]] = {}
    for name, archs in _read("kernel_resources.json")["rows"].items():
        kernel = most.setdefault(name.partition("<")[0], {})
        for arch, (registers, shared, *_) in archs.items():
            before = kernel.get(arch, (0, 0))
            kernel[arch] = max(before[0], registers), max(before[1], shared)
    archs = sorted({arch for kernel in most.values() for arch in kernel})
    rows = [
        [f"`{name}`", *(" / ".join(map(str, kernel[arch])) if arch in kernel else "" for arch in archs)]
        for name, kernel in most.items()
    ]
    return table(["kernel: registers / shared bytes, at most", *(f"sm_{arch}" for arch in archs)], rows)


# What others test with ------------------------------------------------------------------------------------------------


def _newest(kind: str) -> Any:
    """Return the newest record of a kind in bench/results."""
    *_, path = sorted(RESULTS.glob(f"{kind}-*.json"))
    return json.loads(path.read_text(encoding="utf-8"))


def onnx_cases() -> list[str]:
    """Return the newest count of ONNX's own cases, operator by operator."""
    found = _newest("onnx-cases")

    def row(name: str, one: dict[str, Any]) -> list[str]:
        refused = "; ".join(f"{count}: {_sentences(why)}" for why, count in one["refused"].items())
        return [name, f"{one['right']:,}", refused, f"{one['wrong']:,}"]

    rows = [row(f"`{name}`", one) for name, one in found["operators"].items()]
    title = f"cases of ONNX {found['onnx']}, {found['date']}"
    counted = ["", "Counted by `python -m tests.ladder.onnx_cases`."]
    return [*table([title, "right", "refused by name", "wrong"], [row("all", found["total"]), *rows]), *counted]


def torch_samples() -> list[str]:
    """Return the newest count of PyTorch's own samples."""
    found = _newest("torch-samples")
    total = found["total"]
    rows = [["right", f"{total['right']:,}"], ["right with a batch axis added", f"{total['adapted']:,}"]]
    rows += [[f"refused by name: {_sentences(why)}", f"{count:,}"] for why, count in total["refused"].items()]
    rows += [["wrong", f"{total['wrong']:,}"]]
    what = f"samples of PyTorch {found['torch']}, forward and backward, {found['date']}"
    return [*table([what, "count"], rows), "", "Counted by `python -m tests.ladder.torch_samples`."]


# Sphinx -------------------------------------------------------------------------------------------------------------


def _directive(lines: Callable[..., list[str]], arguments: int) -> type[SphinxDirective]:
    class Made(SphinxDirective):
        required_arguments: ClassVar[int] = arguments
        final_argument_whitespace = True

        def run(self) -> list[nodes.Node]:
            made = StringList(lines(*self.arguments), source=self.get_source_info()[0])
            node = nodes.container()
            self.state.nested_parse(made, self.content_offset, node)
            return node.children

    return Made


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("flags", _directive(flags, 1))
    app.add_directive("commands", _directive(every_command, 0))
    app.add_directive("torch-samples", _directive(torch_samples, 0))
    app.add_directive("onnx-cases", _directive(onnx_cases, 0))
    app.add_directive("presets", _directive(presets, 0))
    app.add_directive("layer-kinds", _directive(layer_kinds, 0))
    app.add_directive("mutants", _directive(mutants, 0))
    app.add_directive("resources", _directive(resources, 0))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Make the notebooks: NAME.py is the source that people read and change, NAME.ipynb the same with its outputs.

    python notebooks/build.py                 all of them; the training wants CIFAR-10 (GPUCONV_DATA, or the cache)
    python notebooks/build.py 01-operators    one

In a source, `# %%` begins a code cell and `# %% [markdown]` one of text, whose lines are comments.  A notebook runs in an
empty folder: it needs the installed package and nothing beside itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import v4

HERE = Path(__file__).resolve().parent
NAMES = (
    *("01-operators", "02-batch-norm", "03-train-a-net", "04-deblur"),
    *("05-own-pictures", "06-course-code", "07-autoencoder"),
)


def cells(text: str) -> list[tuple[str, str]]:
    """Return (kind, source) of every cell in the text of a source; kind is "code" or "markdown"."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line in ("# %%", "# %% [markdown]"):
            found.append(("markdown" if "markdown" in line else "code", []))
        elif found:
            kind, lines = found[-1]
            lines.append(line.removeprefix("#").removeprefix(" ") if kind == "markdown" else line)
        elif line:
            msg = f"a source begins with a cell marker, got {line!r}"
            raise ValueError(msg)
    return [(kind, "\n".join(lines).strip()) for kind, lines in found]


def notebook(name: str) -> Any:
    """Return the notebook of a source, without outputs."""
    book = v4.new_notebook()
    for number, (kind, source) in enumerate(cells((HERE / f"{name}.py").read_text(encoding="utf-8")), 1):
        make = v4.new_code_cell if kind == "code" else v4.new_markdown_cell
        book.cells.append(make(source, id=f"cell-{number}"))
    return book


def execute(book: Any, environment: dict[str, str], timeout: int) -> None:
    """Run a notebook from top to bottom in an empty folder; raise nbclient's CellExecutionError for the first error.

    environment: what the kernel finds in os.environ   timeout: seconds for a cell
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            book, timeout=timeout, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute(env=environment)
    # Whose machine it was is nobody's business, and the versions of a kernel would change with every build.
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
    }


def main(names: list[str]) -> None:
    """Build the notebooks of these names, or all."""
    for name in names or NAMES:
        book = notebook(name)
        execute(book, dict(os.environ), timeout=3600)
        nbformat.validate(book)
        nbformat.write(book, HERE / f"{name}.ipynb")
        print(f"{name}.ipynb: {(HERE / f'{name}.ipynb').stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

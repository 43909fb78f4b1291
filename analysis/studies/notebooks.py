"""Make the notebooks of the studies from their scripts, or say which are out of step.

    python analysis/studies/notebooks.py [--check]
    python analysis/studies/notebooks.py --execute NAME ...

A script is in cells (``# %%``), and its notebook has the same ones. ``--execute`` runs notebooks,
and the sweeps behind them that are missing in ``results``, and stores them with their outputs,
which the documentation shows. A notebook whose script has changed loses its outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
NO_STUDY = (
    "common",
    "notebooks",
    "private_training",
    "quickstart",
    "training_curves",
    "training_without_noise",
)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def scripts() -> list[Path]:
    """Return the scripts that are studies."""
    return sorted(path for path in HERE.glob("*.py") if path.stem not in NO_STUDY)


def notebook_of(script: Path) -> Any:
    """Return a script's notebook without outputs, the same each time."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
        cell.metadata = nbformat.from_dict({})
    return notebook


def is_in_step(path: Path, notebook: Any) -> bool:
    """Whether a file holds a notebook, outputs aside."""
    if not path.is_file():
        return False
    stored = nbformat.read(path, as_version=4)
    for cell in stored.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bool(stored == notebook)


def execute(script: Path) -> None:
    """Run a script's notebook, and store it with its outputs."""
    from nbclient import NotebookClient

    notebook = notebook_of(script)
    resources = {"metadata": {"path": HERE}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=resources).execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # without this machine's version of Python
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress is no result
            if any("runs failed" in one.get("text", "") for one in cell.outputs):
                raise SystemExit(f"{script.name}: runs of its sweep failed; nothing is stored.")
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def main() -> int:
    """Write or execute notebooks, or only compare them."""
    check = "--check" in sys.argv[1:]
    if "--execute" in sys.argv[1:]:
        for script in scripts():
            if script.stem in sys.argv[2:]:
                execute(script)
                print(script.with_suffix(".ipynb"))
        return 0
    late = 0
    for script in scripts():
        path, notebook = script.with_suffix(".ipynb"), notebook_of(script)
        if is_in_step(path, notebook):
            continue
        late += 1
        print(f"{path.name} is out of step with {script.name}" if check else path)
        if not check:
            nbformat.write(notebook, path)
    return int(check and late > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Make the notebooks of the studies from their scripts, or say which are out of step.

    python analysis/studies/notebooks.py [--check]

A script is in cells (``# %%``); its notebook has the same cells, and no outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
NO_STUDY = ("common", "notebooks", "training_curves")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def scripts() -> list[Path]:
    """Return the scripts that are studies."""
    return sorted(path for path in HERE.glob("*.py") if path.stem not in NO_STUDY)


def notebook_of(script: Path) -> str:
    """Return the text of a script's notebook, the same each time."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
        cell.metadata = nbformat.from_dict({})
    return nbformat.writes(notebook) + "\n"


def main() -> int:
    """Write the notebooks, or only compare them."""
    check = "--check" in sys.argv[1:]
    late = 0
    for script in scripts():
        path, text = script.with_suffix(".ipynb"), notebook_of(script)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        late += 1
        print(f"{path.name} is out of step with {script.name}" if check else path)
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and late > 0)


if __name__ == "__main__":
    sys.exit(main())

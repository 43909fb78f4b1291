"""The documentation site: `make docs` builds it, offline, with warnings as errors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE = Path(__file__).parent

project = "fcfn_abm"
author = copyright = "The fcfn_abm authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["_*"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives headings
mathjax_path = "mathjax/tex-svg.js"  # MathJax 3.2.2, whole in one file
mathjax3_config = {
    "options": {"enableMenu": False},  # the menu would load more files
    "tex": {"packages": {"[-]": ["noerrors", "noundefined"]}},  # faults show, and fail the tests
}

html_theme = "pydata_sphinx_theme"
html_title = "fcfn_abm"
html_static_path = ["_static"]
html_extra_path = ["_moved"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_favicon = "_static/favicon.svg"
html_sidebars = {
    page: [] for page in ("index", "tutorial", "glossary", "contributing", "changelog")
}
smartquotes = False  # "--trust" must stay what is typed
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Which pages lie below which. It stands here since GitHub shows no table of contents of Sphinx's.
_BELOW = {
    "index": [
        "Tutorial <tutorial>",
        "How-to <howto>",
        "Explanation <explanation>",
        "Studies <studies>",
        "Reference <reference/index>",
        "Glossary <glossary>",
        "Contributing <contributing>",
        "Changelog <changelog>",
    ],
    "tutorial": ["tutorial.zh"],
    "howto": [
        "howto_costs_csv",
        "howto_sweep_figure",
        "howto_node_left",
        "howto_own_images",
        "howto_half_lives",
        "plugins",
        "training",
        "sweeps",
        "clusters",
        "records",
        "report",
        "view",
        "mesa",
        "export_plan",
        "emulation",
        "calibrate",
        "closed_loop",
        "audit",
        "secure_noise",
    ],
    "explanation": [
        "theory",
        "odd",
        "dynamics",
        "mechanisms",
        "which_mechanism",
        "groups",
        "averages",
        "costs",
        "privacy",
        "free_riders",
        "manipulation",
        "decisions",
        "performance",
        "training_performance",
        "reliability",
    ],
    "studies": ["replication", "gallery"],
    "reference/index": ["keys", "commands", "library", "odd", "sources"],
}
_FROM_ROOT = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
_FOUND_BY = {  # what readers search for, where a page has other words or is not alone to have them
    "howto_costs_csv": ["hospital", "csv"],
    "howto_sweep_figure": ["seaborn"],
    "howto_half_lives": ["half-life", "half-lives", "speed of convergence"],
    "howto_node_left": ["why a node left", "dropout"],
    "howto_own_images": ["my own images", "my own data"],
    "plugins": ["my own rule", "my own mechanism", "custom learning rule", "plug-in"],
    "export_plan": ["export", "export plan"],
    "mesa": ["agents"],
    "clusters": ["SLURM", "Kubernetes", "Dask"],
    "privacy": ["differential privacy", "epsilon"],
    "theory": ["equations", "Nash equilibrium", "Stackelberg equilibrium"],
}


def setup(app: Sphinx) -> None:
    """Connect what is below to Sphinx."""
    app.connect("builder-inited", _write_notebooks)
    app.connect("source-read", _complete_page)


def _complete_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in files of the root, unlink pages outside of the site, add index and contents."""
    if page in _FROM_ROOT:
        file = _HERE.parent / _FROM_ROOT[page]
        app.env.note_dependency(file)
        text = re.sub(r"\]\((?!docs/|https?:|#)", "](../", file.read_text(encoding="utf-8"))
        source[0] = text.replace("](docs/", "](")
    for name, file in _FROM_ROOT.items():
        source[0] = source[0].replace(f"../{file}", f"{name}.md")
    root = re.escape("../" * (page.count("/") + 1))
    source[0] = re.sub(
        rf"\[`?([^]`]*)`?\]\({root}([^)]*(?:[\w.]+\.md|/))(?:#[^)]*)?\)", _unlink, source[0]
    )
    source[0] = source[0].replace("\n\n```\n", "\n```\n")  # with which a doctest ends
    if page in _FOUND_BY:
        source[0] = f"```{{index}} !{', !'.join(_FOUND_BY[page])}\n```\n\n{source[0]}"
    below = _BELOW.get(page, [])
    if page == "studies":
        below = [*below, *(f"notebooks/{name}" for name, _ in executed_notebooks())]
    if below:
        lines = "\n".join(below)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{lines}\n```\n"


def _unlink(match: re.Match[str]) -> str:
    text, path = match[1], match[2]
    return f"`{path}`" if text.endswith(path.rsplit("/", 1)[-1]) else f"{text} (`{path}`)"


def _write_notebooks(app: Sphinx) -> None:  # noqa: ARG001 - Sphinx's
    """Make a page of each executed notebook, with its pictures beside it."""
    folder = _HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    for name, notebook in executed_notebooks():
        page, pictures = render_notebook(name, notebook)
        for file, content in {f"{name}.md": page.encode(), **pictures}.items():
            if not (folder / file).is_file() or (folder / file).read_bytes() != content:
                (folder / file).write_bytes(content)  # what is unchanged is not built again


def executed_notebooks() -> Iterator[tuple[str, Any]]:
    """Yield name and content of the notebooks that were stored with their outputs."""
    for path in sorted((_HERE.parent / "analysis" / "studies").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if any(cell.get("outputs") for cell in notebook["cells"]):
            yield path.stem, notebook


def render_notebook(name: str, notebook: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page, and the pictures that the page shows, by their names."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures)}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![Figure {len(pictures)} of the study {name}]({picture})")
            elif "text/markdown" in data:
                parts.append("".join(data["text/markdown"]))
            else:
                text = "".join(data.get("text/plain", output.get("text", ""))).rstrip()
                parts.append(f"```text\n{text}\n```")
        if len(parts) == 1:
            parts.append(
                f"The notebook `analysis/studies/{name}.ipynb`, with the outputs of its full runs."
            )
    return "\n\n".join(parts) + "\n", pictures

"""What the documentation site takes from elsewhere: commands, scenario keys, sources, notebooks."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what is generated, and unlink what lies outside of the site."""
    for name, made in _GENERATED.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", made())
    return re.sub(r"\[`?([^]`]*)`?\]\((\.\./[^)]*)\)", _unlink, markdown)


def _unlink(match: re.Match[str]) -> str:
    text, path = match[1], match[2].removeprefix("../")
    return f"`{path}`" if text.endswith(path.rsplit("/", 1)[-1]) else f"{text} (`{path}`)"


def on_config(config: Any) -> Any:
    """Add the executed notebooks of the studies to the navigation."""
    pages = [{title: f"notebooks/{name}.md"} for name, title, _ in _executed_notebooks()]
    if pages:
        place = next(i for i, entry in enumerate(config.nav) if "Gallery" in entry)
        config.nav.insert(place, {"Notebooks": pages})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Make a page of each executed notebook, with its pictures beside it."""
    from mkdocs.structure.files import File

    for name, _, notebook in _executed_notebooks():
        markdown, pictures = render_notebook(name, notebook)
        files.append(File.generated(config, f"notebooks/{name}.md", content=markdown))
        for path, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{path}", content=content))
    return files


def _executed_notebooks() -> Iterator[tuple[str, str, Any]]:
    """Yield the notebooks that were stored with their outputs: name, title, content."""
    for path in sorted((_HERE.parent / "analysis" / "studies").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if any(cell.get("outputs") for cell in notebook["cells"]):
            title = "".join(notebook["cells"][0]["source"]).partition("\n")[0]
            yield path.stem, title.lstrip("# "), notebook


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


def commands() -> str:
    """Return the help of every command."""
    import typer.main
    from typer.testing import CliRunner

    from fcfn_abm.cli import app

    def walk(command: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*path, name])

    parts = []
    for path in walk(typer.main.get_command(app), []):
        shown = CliRunner().invoke(app, [*path, "--help"], prog_name="fcfn", terminal_width=80)
        title = " ".join(["fcfn", *path])
        parts.append(f"## {title}\n\n```text\n{shown.output.strip()}\n```\n")
    return "\n".join(parts)


def scenario_keys() -> str:
    """Return every table of a scenario file: its keys, what they take, and what they mean."""
    from fcfn_abm.build import scenario_schema

    schema = scenario_schema()
    return "\n".join(_tables(schema, "", schema["$defs"]))


def _tables(table: Mapping[str, Any], path: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    inner, rows = [], []
    for name, key in table.get("properties", {}).items():
        place = f"{path.strip('[]')}.{name}" if path else name
        below = _reference(key)
        if below:
            inner.append((f"[{place}]" if _is_list(key) else place, definitions[below]))
        elif "oneOf" in key:
            inner.append((place, key))
        else:
            rows.append((name, _takes(key), _default(key), _line(key.get("description", ""))))
    if path:
        yield f"## `[{path}]`\n"
    yield _line(table.get("description", "")) + "\n" if path else ""
    if rows:
        yield "| key | takes | default | |\n|---|---|---|---|"
        yield "\n".join(f"| `{n}` | {t} | {d} | {m} |" for n, t, d, m in rows) + "\n"
    for choice in table.get("oneOf", []):
        if "properties" in choice:
            yield from _choice(choice)
    for place, below in inner:
        yield from _tables(below, place, definitions)


def _choice(choice: Mapping[str, Any]) -> Iterator[str]:
    yield f'**`kind = "{choice["properties"]["kind"]["const"]}"`**: ' + _line(
        choice.get("description", "").split("\n\n")[0]
    )
    options = [(n, k) for n, k in choice["properties"].items() if n != "kind"]
    yield ""
    for name, key in options:
        text = _line(key.get("description", ""))
        default = f"; default {_default(key)}" if "default" in key else ""
        yield f"- `{name}` ({_takes(key)}{default}): {text}"
    yield ""


def _reference(key: Mapping[str, Any]) -> str | None:
    parts = [key, *key.get("anyOf", []), *key.get("allOf", [])]
    for part in (*parts, *(part["items"] for part in parts if "items" in part)):
        if "$ref" in part:
            return str(part["$ref"]).rsplit("/", 1)[1]
    return None


def _is_list(key: Mapping[str, Any]) -> bool:
    """Whether a key holds a list of tables: ``[[events]]``."""
    return any("items" in part for part in (key, *key.get("anyOf", [])))


def _takes(key: Mapping[str, Any]) -> str:
    if "anyOf" in key:
        return " or ".join(_takes(part) for part in key["anyOf"] if part.get("type") != "null")
    if "enum" in key or "const" in key:
        return ", ".join(f"`{value}`" for value in key.get("enum", [key.get("const")]))
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    if "minimum" in key:
        del bounds["exclusiveMinimum"]  # zero, which is farther away
    limits = [text.format(key[name]) for name, text in bounds.items() if name in key]
    kind = {"array": "list", "object": "table"}.get(key.get("type", ""), key.get("type", "any"))
    return ", ".join([kind, *limits])


def _default(key: Mapping[str, Any]) -> str:
    value = key.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else repr(value)}`"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def sources() -> str:
    """Return docs/references.bib as a list."""
    text = (_HERE / "references.bib").read_text(encoding="utf-8")
    lines = []
    for entry in re.findall(r"@\w+\{(.*?)\n\}", text, re.DOTALL):
        field = dict(re.findall(r"(\w+) = \{(.*)\}", entry))
        where = field.get("journal") or field.get("booktitle") or field.get("publisher", "")
        authors = field["author"].replace(" and ", "; ")
        lines.append(f"- {authors} ({field['year']}): *{field['title']}*. {where}.")
    return "\n".join(lines)


_GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "scenario keys": scenario_keys,
    "sources": sources,
}

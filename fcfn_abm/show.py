"""Short descriptions of objects, as text and as HTML for notebooks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from html import escape


class Shown:
    """Mixin with a ``repr`` of a few lines, and a small HTML table for notebooks."""

    @abstractmethod
    def _describe(self) -> tuple[str, Mapping[str, object]]:
        """Return a title and named values; floats are shown with six digits."""

    def __repr__(self) -> str:
        title, facts = self._describe()
        width = max(map(len, facts), default=0)
        lines = [f"  {name:{width}}  {_text(value)}" for name, value in facts.items()]
        return "\n".join([title, *lines])

    def _repr_html_(self) -> str:
        title, facts = self._describe()
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(_text(value))}</td></tr>"
            for name, value in facts.items()
        )
        return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)

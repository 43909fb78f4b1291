"""The page that Solara serves: one session for each tab that opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import solara

from fcfn_abm.viz.session import Opened, Session, View, wish_of

shown: Opened | None = None
"""What every tab opens; set before the server starts."""


@solara.component_vue("window.vue", vuetify=False)  # type: ignore[untyped-decorator]
def _window(  # type: ignore[no-untyped-def]
    title="",
    status="",
    tone="calm",
    problem="",
    invalid="",
    note="",
    live=True,
    playing=False,
    over=False,
    moment=0,
    moments=None,
    speed=5.0,
    colour_by="payment",
    picked=None,
    n_nodes=0,
    tiles=(),
    groups=(),
    pictures=(),
    path=None,
    story=(),
    event_wish: Callable[[dict[str, Any]], None] | None = None,
):
    """Declare what the template is told, and what it may say: the fields of a view."""


@solara.component  # type: ignore[untyped-decorator]
def Page() -> None:  # noqa: N802 - Solara looks for this name
    """Show a market, or a record, in this tab."""
    if shown is None:
        raise RuntimeError("Nothing was opened: fcfn_abm.viz.server.serve() sets what is shown.")
    what = shown
    view, set_view = solara.use_state(View(title=what.scenario.title or what.name))
    session: Session = solara.use_memo(lambda: Session(what, set_view), [])

    def work() -> Callable[[], None]:
        session.start()
        return session.close

    solara.use_effect(work, [])

    def ask(message: dict[str, Any]) -> None:
        wish, details = wish_of(message)
        session.ask(wish, *details)

    solara.Title(f"{view.title} - fcfn")
    _window(**asdict(view), event_wish=ask)


@solara.component  # type: ignore[untyped-decorator]
def Layout(children: list[solara.Element] = []) -> None:  # noqa: B006, N802 - Solara's convention
    """Leave the whole page to the window."""
    solara.Div(children=children)

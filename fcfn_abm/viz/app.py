"""The page that Solara serves: one session for each tab that opens it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import solara

from fcfn_abm.viz.session import OpenedSource, Session, View, parse_request

logger = logging.getLogger(__name__)

source: OpenedSource | None = None
"""What every tab shows; set before the server starts."""


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
    charts=(),
    path=None,
    node_details=(),
    event_request: Callable[[object], None] | None = None,
):
    """Declare the properties and the event of the template: the fields of a view, and requests."""


@solara.component_vue("charts.vue", vuetify=False)  # type: ignore[untyped-decorator]
def _charts(  # type: ignore[no-untyped-def]
    charts=(), event_request: Callable[[object], None] | None = None
):
    """Declare the charts: what they show; their columns arrive as messages."""


@solara.component  # type: ignore[untyped-decorator]
def Page() -> None:  # noqa: N802 - Solara looks for this name
    """Show a market or a record in this tab."""
    if source is None:
        raise RuntimeError("There is no source: fcfn_abm.viz.server.serve() sets it.")
    opened = source
    view, set_view = solara.use_state(View(title=opened.scenario.title or opened.name))
    widget = solara.use_ref(None)

    def send(heads: list[dict[str, Any]], columns: list[bytes]) -> None:
        if widget.current is not None:  # the charts ask for everything when they appear
            widget.current.send({"method": "push", "args": [heads]}, columns)

    session: Session = solara.use_memo(lambda: Session(opened, set_view, send), [])

    def run_session() -> Callable[[], None]:
        session.start()
        return session.close

    solara.use_effect(run_session, [])

    def send_request(message: object) -> None:
        try:
            action, arguments = parse_request(message)
        except ValueError as error:
            logger.warning("A message from a browser is ignored: %s.", error)
        else:
            session.request(action, *arguments)

    solara.Title(f"{view.title} - fcfn")
    shown = asdict(view)
    charts = _charts(charts=shown.pop("charts"), event_request=send_request)
    _window(**shown, charts=[charts], event_request=send_request)

    def keep_widget() -> None:
        widget.current = solara.get_widget(charts)

    solara.use_effect(keep_widget, [])


@solara.component  # type: ignore[untyped-decorator]
def Layout(children: list[solara.Element] = []) -> None:  # noqa: B006, N802 - Solara's convention
    """Leave the whole page to the window."""
    solara.Div(children=children)

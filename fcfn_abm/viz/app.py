"""The page that Solara serves, with one session per tab."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import solara

from fcfn_abm.viz.requests import parse_request
from fcfn_abm.viz.session import OpenedSource, Session
from fcfn_abm.viz.view import View

logger = logging.getLogger(__name__)

source: OpenedSource | None = None
"""What every tab shows; set before the server starts."""


@solara.component_vue("window.vue", vuetify=False)  # type: ignore[untyped-decorator]
def _window(  # type: ignore[no-untyped-def]
    title="",
    subtitle="",
    status="",
    tone="calm",
    problem="",
    rejected=None,
    note="",
    live=True,
    playing=False,
    over=False,
    moment=0,
    first_moment=0,
    moments=0,
    speed=5.0,
    colour_by="payment",
    picked=None,
    hover=None,
    n_nodes=0,
    link="",
    tiles=(),
    groups=(),
    pictures=(),
    charts=(),
    runs=(),
    can_pin=False,
    path=None,
    node_details=(),
    event_request: Callable[[object], None] | None = None,
):
    """Declare the template's properties (the fields of a view) and its event (requests)."""


@solara.component_vue("charts.vue", vuetify=False)  # type: ignore[untyped-decorator]
def _charts(  # type: ignore[no-untyped-def]
    charts=(), marker=None, event_request: Callable[[object], None] | None = None
):
    """Declare the charts; their columns arrive as messages."""


@solara.component  # type: ignore[untyped-decorator]
def Page() -> None:  # noqa: N802 - Solara looks for this name
    """Show a market or a record in this tab."""
    if source is None:
        raise RuntimeError("The window has no source; start it with fcfn_abm.viz.server.serve().")
    opened = source
    view, set_view = solara.use_state(View(title=opened.scenario.title or opened.name))
    charts_widget, window_widget = solara.use_ref(None), solara.use_ref(None)
    router = solara.use_router()

    def send(heads: list[dict[str, Any]], columns: list[bytes]) -> None:
        if charts_widget.current is not None:  # the charts ask for everything when they appear
            charts_widget.current.send({"method": "push", "args": [heads]}, columns)

    def deliver(name: str, content: bytes) -> None:
        if window_widget.current is not None:
            window_widget.current.send({"method": "save", "args": [name]}, [content])

    session: Session = solara.use_memo(
        lambda: Session(opened, set_view, send, deliver, router.search or ""), []
    )

    def run_session() -> Callable[[], None]:
        session.start()
        return session.close

    solara.use_effect(run_session, [])

    def send_request(message: object) -> None:
        try:
            action, arguments = parse_request(message)
        except ValueError as error:
            logger.warning("Ignored a message from a browser: %s.", error)
        else:
            session.request(action, *arguments)

    solara.Title(f"{view.title} - fcfn")
    shown = asdict(view)
    charts = _charts(
        charts=shown.pop("charts"), marker=shown.pop("marker"), event_request=send_request
    )
    window = _window(**shown, charts=[charts], event_request=send_request)

    def keep_widgets() -> None:
        charts_widget.current = solara.get_widget(charts)
        window_widget.current = solara.get_widget(window)

    solara.use_effect(keep_widgets, [])


@solara.component  # type: ignore[untyped-decorator]
def Layout(children: list[solara.Element] = []) -> None:  # noqa: B006, N802 - Solara's convention
    """Leave the whole page to the window."""
    solara.Div(children=children)

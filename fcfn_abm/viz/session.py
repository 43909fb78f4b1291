"""One tab of the window: a source, a queue of requests, and a thread that handles them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import NoneType
from typing import Any

from fcfn_abm.build import load_scenario
from fcfn_abm.errors import FcfnError, InvalidRecordError, InvalidScenarioError, abbreviate
from fcfn_abm.records import Record, read_record
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz import pictures, settings
from fcfn_abm.viz.charts import Feed, describe_charts, list_tables
from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.node_details import describe_node
from fcfn_abm.viz.pictures import Picture
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.star import draw_star
from fcfn_abm.viz.svg import number

FRAMES = 8.0
"""Upper limit of pictures per second; faster play makes several rounds per picture."""

_AVERAGED = {
    "active": "active nodes",
    "population": "all nodes",
    "effective": "the effective number",
}
_VERDICT_NAMES = {
    "converged": "Converged",
    "cycling": "Cycling",
    "diverged": "Diverged",
    "no-trade": "No trade",
    "max-rounds": "Not settled",
    "stopped": "Stopped",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedSource:
    """What the window shows: a scenario to play, or a record to replay."""

    name: str
    scenario: Scenario
    record: Record | None = None


def open_source(
    path: Path,
    overrides: tuple[str, ...] = (),
    *,
    imports: tuple[str, ...] = (),
    trust: bool = False,
) -> OpenedSource:
    """Read a scenario file or the folder of a record.

    Plug-ins are imported as in :func:`fcfn_abm.build.load_scenario`; a record needs none.

    Raises
    ------
    FcfnError
        If it is neither.
    """
    if path.is_dir():
        if overrides:
            raise InvalidScenarioError("a record cannot be changed.", file=f"--set {overrides[0]}")
        if imports or trust:
            option = f"--import {imports[0]}" if imports else "--trust"
            raise InvalidScenarioError("a record is shown without any code.", file=option)
        record = read_record(path)
        if not len(record.rounds):
            raise InvalidRecordError(f"{path}: no round was played, so there is nothing to show.")
        return OpenedSource(path.name, record.scenario, record)
    scenario = load_scenario(path, overrides, imports=imports, trust=trust)
    return OpenedSource(path.stem, scenario.model_copy(update={"sweep": None}))


@dataclass
class View:
    """The state that is sent to the browser; plain data."""

    title: str
    status: str = "Opening the market."
    tone: str = "calm"
    problem: str = ""
    invalid: str = ""
    """Path of the setting that was rejected."""
    note: str = ""
    live: bool = True
    playing: bool = False
    over: bool = False
    moment: int = 0
    moments: int | None = None
    speed: float = 5.0
    colour_by: str = "payment"
    picked: int | None = None
    n_nodes: int = 0
    tiles: list[dict[str, str]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    path: dict[str, str] | None = None
    node_details: list[str] = field(default_factory=list)


class Session:
    """Handles the requests of one tab in order, in its own thread.

    Parameters
    ----------
    opened : OpenedSource
        Read once; each session creates its own market from it.
    show : callable
        Called with a new :class:`View` after every change.
    send : callable, optional
        Takes the increments of the charts' columns, as of :class:`fcfn_abm.viz.charts.Feed`.
    """

    def __init__(
        self,
        opened: OpenedSource,
        show: Callable[[View], None],
        send: Callable[[list[dict[str, Any]], list[bytes]], None] = lambda *_: None,
    ) -> None:
        self._opened, self._show = opened, show
        self._feed, self._opens = Feed(send), 0
        self._tree = settings.tree_of(opened.scenario)
        self._scenario = opened.scenario
        self._source: Source | None = None
        self._playing, self._speed, self._due = False, 5.0, 0.0
        self._remainder = 0.0  # fraction of a round carried over to the next picture
        self._picked: int | None = None
        self._colour_by: Any = "payment"
        self._problem = self._invalid = ""
        self._pictures: dict[str, Picture] = {}
        self._inbox: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
        self._closed = False
        self._groups = [] if opened.record else settings.describe_settings(self._tree)

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._work, name="session", daemon=True).start()

    def request(self, action: str, *arguments: Any) -> None:
        """Put a request into the queue; :meth:`handle` lists the actions."""
        self._inbox.put((action, arguments))

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self._inbox.put(("close", ()))

    def _work(self) -> None:
        self._try(self._open)
        self.show()
        while not self._closed:
            for action, arguments in self._wait_for_requests():
                self._try(partial(self.handle, action, *arguments))
            if self._playing and not self._closed and time.monotonic() >= self._due:
                self._due = time.monotonic() + 1.0 / min(self._speed, FRAMES)
                self._try(self._play_on)
            if not self._closed:
                self.show()

    def _wait_for_requests(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Wait for requests, or until the next round is due; return all requests in the queue."""
        wait = max(self._due - time.monotonic(), 0.0) if self._playing else None
        found = []
        with suppress(Empty):
            found.append(self._inbox.get(timeout=wait))
            while True:
                found.append(self._inbox.get_nowait())
        return found

    def _try(self, work: Callable[[], None]) -> None:
        """Run ``work``; show an error as the problem of this tab, so that the thread goes on."""
        try:
            work()
        except FcfnError as error:
            self._problem, self._playing = str(error), False
        except Exception as error:  # without a message the page would stay blank
            if self._closed:  # what was going on was cut off
                return
            logger.exception("The window could not do this.")
            self._playing = False
            self._problem = f"This failed ({type(error).__name__}: {error}); reset to go on."

    def handle(self, action: str, *arguments: Any) -> None:
        """Carry out one request of the browser; an unknown action does nothing."""
        if not self._invalid:  # a rejected setting keeps its message until it is corrected
            self._problem = ""
        if action == "play":
            self._play()
        elif action == "pause":
            self._playing = False
        elif action == "step":
            self._playing = False
            self._step()
        elif action == "reset":
            self._playing = False
            if not self._opened.record:
                self._tree = settings.tree_of(self._scenario)
                self._groups = settings.describe_settings(self._tree)
            self._open()
        elif action == "seek" and isinstance(self._source, Replay):
            self._playing = False
            self._source.seek(int(arguments[0]))
        elif action == "speed":
            self._speed = min(max(float(arguments[0]), 0.2), 100.0)
        elif action == "set":
            self._set(*arguments)
        elif action == "pick":
            self._picked = None if arguments[0] is None else int(arguments[0])
        elif action == "pick_at":
            name, x, y = arguments
            found = (
                self._pictures[name].node_at(float(x), float(y)) if name in self._pictures else None
            )
            self._picked = self._picked if found is None else found
        elif action == "ready":  # the charts of the page have just appeared, or missed something
            self._feed.restart()
        elif action == "colour" and arguments[0] in ("payment", "utility"):
            self._colour_by = arguments[0]

    def _open(self) -> None:
        """Start over: the market at its first round, the record at its last."""
        self._problem = self._invalid = ""
        self._opens += 1
        if self._opened.record:
            first = self._source is None
            self._source = Replay(self._opened.record)
            if not first:
                self._source.seek(1)
        else:
            self._source = LiveMarket(self._scenario)

    def _play(self) -> None:
        if self._source is None:
            return
        if self._source.over and isinstance(self._source, Replay):
            self._source.seek(1)
        self._playing = not self._source.over
        self._due = time.monotonic()

    def _play_on(self) -> None:
        self._remainder += self._speed / min(self._speed, FRAMES)
        for _ in range(int(self._remainder)):
            self._step()
        self._remainder %= 1.0

    def _step(self) -> None:
        if self._source and not self._source.over:
            self._source.step()
        if self._source is None or self._source.over:
            self._playing = False

    def _set(self, path: str, value: Any) -> None:
        """Change a setting; a valid one restarts the market."""
        if self._opened.record:
            return
        if path not in self._paths():  # what is not shown, such as a file to read, stays
            self._problem = f"The window has no setting {abbreviate(path)}."
            return
        self._invalid = path
        self._tree = settings.replace_value(self._tree, path, value)
        self._groups = settings.describe_settings(self._tree)
        try:
            scenario = settings.parse_tree(self._tree)
            self._require_few_nodes(scenario)
        except InvalidScenarioError as error:
            named = settings.path_of(error)  # with two invalid settings it may be the other one
            self._invalid = named if named in self._paths() else path
            self._problem, self._playing = f"{error} The market is as it was before.", False
            return
        self._scenario = scenario
        self._tree = settings.tree_of(self._scenario)
        self._groups = settings.describe_settings(self._tree)
        self._open()

    def _paths(self) -> set[str]:
        """Return the paths of the settings that are shown."""
        return {control["path"] for group in self._groups for control in group["controls"]}

    def _require_few_nodes(self, scenario: Scenario) -> None:
        """Limit what one tab can take of this machine, unless the opened scenario takes more."""
        most = max(settings.MOST_NODES, self._opened.scenario.population.n_nodes)
        if scenario.population.n_nodes > most:
            raise InvalidScenarioError(
                f"must be at most {most:,} in the window; a scenario file may have more.",
                file="settings",
                table="population",
                key="n_nodes",
            )

    def show(self) -> None:
        """Send the current state to the browser."""
        title = self._scenario.title or self._opened.name
        changed = self._scenario != self._opened.scenario
        view = View(
            title=f"{title} (with other settings)" if changed else title,
            invalid=self._invalid,
            live=self._opened.record is None,
            playing=self._playing,
            speed=self._speed,
            colour_by=self._colour_by,
            picked=self._picked,
            groups=self._groups,
        )
        self._try(lambda: self._fill(view, self._source))
        view.problem = self._problem
        self._show(view)

    def _fill(self, view: View, source: Source | None) -> None:
        if source is None:
            return
        frame = source.frame()
        view.over, view.moment, view.moments = source.over, source.moment, source.moments
        view.note, view.n_nodes = frame.note, frame.n_nodes
        view.status, view.tone = self._status(source, frame)
        view.tiles = list_tiles(frame)
        self._pictures = {p.name: p for p in draw_pictures(frame, self._colour_by, self._picked)}
        view.pictures = [_to_dict(p) for p in self._pictures.values()]
        view.charts = [asdict(chart) for chart in describe_charts(frame)]
        self._feed.push(list_tables(frame), self._opens)
        if self._picked is not None:
            view.node_details = describe_node(frame, source, self._picked)
            if frame.place_of(self._picked) is not None:
                known = source.path(self._picked)
                view.path = _to_dict(pictures.draw_node_path(frame, self._picked, known))

    def _status(self, source: Source, frame: Frame) -> tuple[str, str]:
        """Return the status line, and its tone."""
        verdict = source.verdict
        if verdict is None:
            if self._playing:
                return "Playing." if source.live else "Replaying.", "calm"
            if frame.round == 0:
                return f"Ready: {frame.n_nodes:,} nodes have made their first reports.", "calm"
            return f"Paused after round {frame.round:,}; no verdict yet.", "calm"
        kind = str(verdict["kind"])
        name = _VERDICT_NAMES.get(kind, kind)
        words = f"{name} after {verdict['rounds']:,} rounds: {verdict['reason']}"
        if not source.over:
            started = frame.training and any(len(r) > 1 for r, _ in frame.training.curves.values())
            pending = "is paused" if started else "comes next"
            words += f" Training {'goes on' if self._playing else pending}."
        return words, "good" if kind == "converged" else "alert"


def draw_pictures(frame: Frame, colour_by: Any, picked: int | None) -> list[Picture]:
    """Draw the pictures of nodes, in the order of the page."""
    return [draw_star(frame, colour_by, picked), pictures.draw_rho_epsilon(frame, picked)]


def list_tiles(frame: Frame) -> list[dict[str, str]]:
    """Return the main numbers of a frame, each beside its reference value."""
    form = frame.form
    name = "closed form" if frame.threshold else "as priced"

    def now(measure: str) -> str:
        values = frame.history[measure]
        return number(values[-1]) if len(values) else "-"

    over = _AVERAGED[form["average_over"]]
    rows: list[tuple[str, str, str]] = [
        ("Round", f"{frame.round:,}", f"at most {frame.scenario.rounds.maximum:,}"),
        ("Payment cap B", now("budget"), f"{name} {number(form['payment'])}"),
        (
            "Nodes that take part",
            f"{frame.history['n_active'][-1]:,}" if frame.round else "-",
            f"{name} {form['n_active']:,} of {frame.n_nodes:,}",
        ),
        ("Total epsilon S", now("total_epsilon"), f"{name} {number(form['total_epsilon'])}"),
        ("Mean epsilon", now("mean_epsilon"), f"over {over}"),
        ("All nodes earn", now("node_utility"), f"{name} {number(form['node_utility'])}"),
        ("Server earns", now("server_utility"), f"{name} {number(form['server_utility'])}"),
    ]
    if frame.training:
        rounds, values = next(iter(frame.training.curves.values()), ([], []))
        done = f"round {rounds[-1] if len(rounds) else 0:,} of {frame.training.rounds:,}"
        rows.append(("Test accuracy", f"{values[-1]:.1%}" if len(values) else "-", done))
    return [{"label": label, "value": value, "note": note} for label, value, note in rows]


def _to_dict(picture: Picture) -> dict[str, str]:
    return {
        "name": picture.name,
        "title": picture.title,
        "alt": picture.alt,
        "svg": picture.svg,
    }


_NUMBER, _WHOLE = (int, float), (int,)
_ARGUMENTS: dict[str, tuple[tuple[type, ...], ...]] = {
    "play": (),
    "pause": (),
    "step": (),
    "reset": (),
    "seek": (_WHOLE,),
    "speed": (_NUMBER,),
    "set": ((str,), (str, bool, int, float, NoneType)),
    "pick": ((*_NUMBER, NoneType),),
    "ready": (),
    "pick_at": ((str,), _NUMBER, _NUMBER),
    "colour": ((str,),),
}
"""The actions of :meth:`Session.handle`, and the types of their arguments."""


def parse_request(message: object) -> tuple[str, list[Any]]:
    """Return action and arguments of a message of the browser.

    Raises
    ------
    ValueError
        If it is none that the page sends.
    """
    if not isinstance(message, dict):
        raise ValueError(f"{abbreviate(message)} is not a request")
    action, arguments = message.get("action"), message.get("arguments")
    if not isinstance(action, str) or action not in _ARGUMENTS:
        raise ValueError(f"there is no action {abbreviate(action)}")
    types = _ARGUMENTS[action]
    if not isinstance(arguments, list) or len(arguments) != len(types):
        raise ValueError(f"{action} takes {len(types)} arguments, not {abbreviate(arguments)}")
    for value, allowed in zip(arguments, types, strict=True):
        if type(value) not in allowed or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{action} does not take {abbreviate(value)}")
    return action, arguments

"""One tab of the window: a source, what its reader asked for, and a thread that plays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from fcfn_abm.build import load_scenario
from fcfn_abm.errors import FcfnError, InvalidRecordError, InvalidScenarioError
from fcfn_abm.records import Record, read_record
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz import pictures, settings
from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.pictures import Picture
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.star import star
from fcfn_abm.viz.story import story
from fcfn_abm.viz.svg import number

FRAMES = 8.0
"""Pictures a second at most; faster play makes several rounds for each."""

_WORDS = {
    "converged": "Converged",
    "cycling": "Cycling",
    "diverged": "Diverged",
    "no-trade": "No trade",
    "max-rounds": "Not settled",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """What the window was opened on: a scenario, or a record."""

    name: str
    scenario: Scenario
    record: Record | None = None


def opened(path: Path, overrides: tuple[str, ...] = ()) -> Opened:
    """Read a scenario file or a record's folder.

    Raises
    ------
    FcfnError
        With one sentence, if it is neither.
    """
    if path.is_dir():
        if overrides:
            raise InvalidScenarioError("a record cannot be changed.", file=f"--set {overrides[0]}")
        record = read_record(path)
        if not len(record.rounds):
            raise InvalidRecordError(f"{path}: no round was played, so there is nothing to show.")
        return Opened(path.name, record.scenario, record)
    scenario = load_scenario(path, overrides)
    return Opened(path.stem, scenario.model_copy(update={"sweep": None}))


@dataclass
class View:
    """What the browser is told; plain data."""

    title: str
    status: str = "Opening the market."
    tone: str = "calm"
    problem: str = ""
    invalid: str = ""
    """The setting that was refused."""
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
    path: dict[str, str] | None = None
    story: list[str] = field(default_factory=list)


class Session:
    """Carries out what a reader asks for, one thing after the other, in a thread of its own.

    Parameters
    ----------
    what : Opened
        Read once; each session makes a market of its own from it.
    show : callable
        Called with a :class:`View` whenever there is something new to see.
    """

    def __init__(self, what: Opened, show: Callable[[View], None]) -> None:
        self._what, self._show = what, show
        self._tree = settings.tree_of(what.scenario)
        self._scenario = what.scenario
        self._source: Source | None = None
        self._playing, self._speed, self._due = False, 5.0, 0.0
        self._rest = 0.0  # part of a round that the next picture owes
        self._picked: int | None = None
        self._colour_by: Any = "payment"
        self._problem = self._invalid = ""
        self._drawn: dict[str, Picture] = {}
        self._inbox: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
        self._closed = False
        self._groups = [] if what.record else settings.describe_settings(self._tree)

    def start(self) -> None:
        """Begin to work."""
        Thread(target=self._work, name="session", daemon=True).start()

    def ask(self, wish: str, *details: Any) -> None:
        """Ask for something; :meth:`do` knows what there is."""
        self._inbox.put((wish, details))

    def close(self) -> None:
        """Stop working, and let the market go."""
        self._closed = True
        self._inbox.put(("close", ()))

    def _work(self) -> None:
        self._try(self._open)
        self.show()
        while not self._closed:
            for wish, details in self._wishes():
                self._try(partial(self.do, wish, *details))
            if self._playing and not self._closed and time.monotonic() >= self._due:
                self._due = time.monotonic() + 1.0 / min(self._speed, FRAMES)
                self._try(self._play_on)
            if not self._closed:
                self.show()
        if self._source:
            self._source.close()

    def _wishes(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Wait for wishes, or for the next round to be due; return all that have gathered."""
        wait = max(self._due - time.monotonic(), 0.0) if self._playing else None
        found = []
        with suppress(Empty):
            found.append(self._inbox.get(timeout=wait))
            while True:
                found.append(self._inbox.get_nowait())
        return found

    def _try(self, work: Callable[[], None]) -> None:
        """Tell what goes wrong in a sentence; the window stays."""
        try:
            work()
        except FcfnError as error:
            self._problem, self._playing = str(error), False
        except Exception as error:  # a blank page would tell less
            logger.exception("The window could not do this.")
            self._playing = False
            self._problem = f"This failed ({type(error).__name__}: {error}); reset to go on."

    def do(self, wish: str, *details: Any) -> None:
        """Carry out a wish."""
        if not self._invalid:  # a refused setting stands until it is mended
            self._problem = ""
        if wish == "play":
            self._play()
        elif wish == "pause":
            self._playing = False
        elif wish == "step":
            self._playing = False
            self._step()
        elif wish == "reset":
            self._playing = False
            if not self._what.record:
                self._tree = settings.tree_of(self._scenario)
                self._groups = settings.describe_settings(self._tree)
            self._open()
        elif wish == "seek" and isinstance(self._source, Replay):
            self._playing = False
            self._source.seek(int(details[0]))
        elif wish == "speed":
            self._speed = min(max(float(details[0]), 0.2), 100.0)
        elif wish == "set":
            self._set(*details)
        elif wish == "pick":
            self._picked = None if details[0] is None else int(details[0])
        elif wish == "pick_at":
            name, x, y = details
            found = self._drawn[name].node_at(float(x), float(y)) if name in self._drawn else None
            self._picked = self._picked if found is None else found
        elif wish == "colour" and details[0] in ("payment", "utility"):
            self._colour_by = details[0]

    def _open(self) -> None:
        """Begin anew: the market at its start, the record at its end."""
        if self._source:
            self._source.close()
        self._problem = self._invalid = ""
        if self._what.record:
            first = self._source is None
            self._source = Replay(self._what.record)
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
        self._rest += self._speed / min(self._speed, FRAMES)
        for _ in range(int(self._rest)):
            self._step()
        self._rest %= 1.0

    def _step(self) -> None:
        if self._source and not self._source.over:
            self._source.step()
        if self._source is None or self._source.over:
            self._playing = False

    def _set(self, path: str, value: Any) -> None:
        """Change a setting; the market begins anew with it, if it is allowed."""
        if self._what.record:
            return
        self._invalid = path
        self._tree = settings.replace_value(self._tree, path, value)
        self._groups = settings.describe_settings(self._tree)
        try:
            self._scenario = settings.parse_tree(self._tree)
        except InvalidScenarioError as error:
            named = settings.path_of(error)  # of two that are wrong, it may be the other one
            paths = {control["path"] for group in self._groups for control in group["controls"]}
            self._invalid = named if named in paths else path
            self._problem, self._playing = f"{error} The market is as it was before.", False
            return
        self._tree = settings.tree_of(self._scenario)
        self._groups = settings.describe_settings(self._tree)
        self._open()

    def show(self) -> None:
        """Tell the browser how things are."""
        title = self._scenario.title or self._what.name
        other = self._scenario != self._what.scenario
        view = View(
            title=f"{title} (with other settings)" if other else title,
            invalid=self._invalid,
            live=self._what.record is None,
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
        view.tiles = tiles(frame)
        self._drawn = {p.name: p for p in drawn(frame, self._colour_by, self._picked)}
        view.pictures = [_plain(p) for p in self._drawn.values()]
        if self._picked is not None:
            view.story = story(frame, source, self._picked)
            if frame.place_of(self._picked) is not None:
                known = source.path(self._picked)
                view.path = _plain(pictures.node_path(frame, self._picked, known))

    def _status(self, source: Source, frame: Frame) -> tuple[str, str]:
        """Say how the market stands, in words."""
        verdict = source.verdict
        if verdict is None:
            if self._playing:
                return "Playing." if source.live else "Replaying.", "calm"
            if frame.round == 0:
                return f"Ready: {frame.n_nodes:,} nodes have made their first reports.", "calm"
            return f"Paused after round {frame.round:,}; no verdict yet.", "calm"
        kind = str(verdict["kind"])
        words = f"{_WORDS.get(kind, kind)} after {verdict['rounds']:,} rounds: {verdict['reason']}"
        if not source.over:
            begun = frame.training and any(len(r) > 1 for r, _ in frame.training.curves.values())
            rests = "is paused" if begun else "comes next"
            words += f" Training {'goes on' if self._playing else rests}."
        return words, "good" if kind == "converged" else "alert"


def drawn(frame: Frame, colour_by: Any, picked: int | None) -> list[Picture]:
    """Return the pictures of a frame, in the order in which they stand."""
    accuracy = pictures.accuracy(frame)
    return [
        star(frame, colour_by, picked),
        pictures.rho_epsilon(frame, picked),
        pictures.totals(frame),
        pictures.distances(frame),
        pictures.participation(frame),
        *pictures.utilities(frame),
        *([accuracy] if accuracy else []),
    ]


def tiles(frame: Frame) -> list[dict[str, str]]:
    """Return the numbers of the moment, each with what it should come to."""
    form = frame.form
    name = "closed form" if frame.threshold else "as priced"

    def now(measure: str) -> str:
        values = frame.history[measure]
        return number(values[-1]) if len(values) else "-"

    over = "active nodes" if form["average_over"] == "active" else "all nodes"
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


def _plain(shown: Picture) -> dict[str, str]:
    return {"name": shown.name, "title": shown.title, "alt": shown.alt, "svg": shown.svg}


def wish_of(message: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return what the browser asked for; it may send anything."""
    details = message.get("details", [])
    return str(message.get("wish", "")), details if isinstance(details, list) else [details]

"""One tab of the window: a source, a queue of requests, and a thread that handles them."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from fcfn_abm.build import load_scenario
from fcfn_abm.errors import FcfnError, InvalidRecordError, InvalidScenarioError, abbreviate
from fcfn_abm.records import Record, read_record
from fcfn_abm.scenario import Scenario, read_scenario, to_toml
from fcfn_abm.viz import files, pictures, settings
from fcfn_abm.viz.charts import Feed, describe_charts, list_tables
from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.node_details import describe_node
from fcfn_abm.viz.pictures import Picture
from fcfn_abm.viz.pins import (
    COLOURS,
    MOST_PINS,
    SHOWN,
    Run,
    compare_runs,
    list_differences,
    take_run,
)
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.view import View, describe_status, draw_pictures, list_tiles

FRAMES = 8.0
"""Upper limit of pictures per second; faster play computes several rounds per picture."""
MOST_PARTS = files.MOST_BYTES // (128 << 10)
"""Most messages for one file."""

_BESIDE = "-beside"  # suffix of the second record's pictures

type Increments = Callable[[list[dict[str, Any]], list[bytes]], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedSource:
    """Source of the window: a scenario to play, or a record to replay."""

    name: str
    scenario: Scenario
    record: Record | None = None
    beside: Record | None = None
    """Another record, replayed side by side with the first."""
    beside_name: str = ""


def open_sources(
    paths: Sequence[Path],
    overrides: tuple[str, ...] = (),
    *,
    imports: tuple[str, ...] = (),
    trust: bool = False,
) -> OpenedSource:
    """Read a scenario file, a record, or two records to compare.

    Raises
    ------
    FcfnError
        If a path cannot be read, there are more than two, or one of two is not a record.
    """
    if len(paths) > 2:
        raise InvalidRecordError(f"the window shows one or two records, not {len(paths)}.")
    first, *others = [open_source(path, overrides, imports=imports, trust=trust) for path in paths]
    if not others:
        return first
    for path, opened in zip(paths, (first, *others), strict=True):
        if opened.record is None:
            raise InvalidRecordError(
                f"{path}: both paths must be records to be compared; 'fcfn run' writes a record "
                "of a scenario."
            )
    names = [first.name, others[0].name]
    if names[0] == names[1]:  # folders of the same name in different places
        names = ["/".join(path.resolve().parts[-2:]) for path in paths]
    return replace(first, name=names[0], beside=others[0].record, beside_name=names[1])


def open_source(
    path: Path,
    overrides: tuple[str, ...] = (),
    *,
    imports: tuple[str, ...] = (),
    trust: bool = False,
) -> OpenedSource:
    """Read a scenario file or the folder of a record.

    Plug-ins are imported as in :func:`fcfn_abm.build.load_scenario`; records need none.

    Raises
    ------
    FcfnError
        If the path is neither.
    """
    if path.is_dir():
        if overrides:
            raise InvalidScenarioError(
                "the settings of a record cannot be changed.", file=f"--set {overrides[0]}"
            )
        if imports or trust:
            option = f"--import {imports[0]}" if imports else "--trust"
            raise InvalidScenarioError("records are shown without plug-ins.", file=option)
        record = read_record(path)
        if not len(record.rounds):
            raise InvalidRecordError(f"{path}: the record has no rounds to show.")
        return OpenedSource(path.name, record.scenario, record)
    scenario = load_scenario(path, overrides, imports=imports, trust=trust)
    if overrides:
        scenario = _name_again(scenario, path)
    return OpenedSource(path.stem, scenario.model_copy(update={"sweep": None}))


def _name_again(scenario: Scenario, path: Path) -> Scenario:
    """Return a scenario with a new title if overrides change the market in its file.

    A title such as "50 nodes" does not fit a million nodes.
    """
    tree, _ = read_scenario(path)
    title = settings.describe_market(scenario)
    with suppress(FcfnError):  # the file may be valid only with its overrides
        if settings.describe_market(load_scenario(path)) == title:
            return scenario
    same = scenario.title == tree.get("title", "")
    return scenario.model_copy(update={"title": title}) if same else scenario


class Session:
    """Handles the requests of one tab in order, in a separate thread.

    Parameters
    ----------
    opened : OpenedSource
        Read once; each session creates its own market from it.
    show : callable
        Called with a new :class:`View` after every change.
    send : callable, optional
        Receives the increments of the charts' columns, see :class:`fcfn_abm.viz.charts.Feed`.
    deliver : callable, optional
        Receives the name and the content of a file to save.
    query : str, default ""
        Query of the link with which the window was opened, with settings.
    """

    def __init__(
        self,
        opened: OpenedSource,
        show: Callable[[View], None],
        send: Increments = lambda *_: None,
        deliver: Callable[[str, bytes], None] = lambda *_: None,
        query: str = "",
    ) -> None:
        self._opened, self._show, self._deliver, self._query = opened, show, deliver, query
        self._feed, self._opens = Feed(send), 0
        self._sources: list[Source] = []
        self._playing, self._speed, self._due = False, 5.0, 0.0
        self._remainder = 0.0  # fraction of a round carried over to the next picture
        self._picked: int | None = None
        self._hovered: tuple[str, int] | None = None  # a picture with a ring of it; "", and a node
        self._colour_by: Any = "payment"
        self._problem = ""
        self._rejected: dict[str, str] = {}
        self._pictures: dict[str, Picture] = {}
        self._pins: list[Run] = []
        self._n_pinned = 0
        self._differences: tuple[list[Scenario], list[list[tuple[str, str]]]] = ([], [])
        self._parts: list[str] = []
        self._inbox: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
        self._closed = False
        self._view = View(title=opened.name)
        self._base = self._scenario = opened.scenario
        self._link: str | None = ""
        self._use(opened.scenario)

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._work, name="session", daemon=True).start()

    def request(self, action: str, *arguments: Any) -> None:
        """Add a request to the queue; :meth:`handle` lists the actions."""
        self._inbox.put((action, arguments))

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self._inbox.put(("close", ()))

    def _work(self) -> None:
        self._try(self._open_first)
        self.show()
        while not self._closed:
            requests = self._wait_for_requests()
            for action, arguments in requests:
                self._try(partial(self.handle, action, *arguments))
            if self._playing and not self._closed and time.monotonic() >= self._due:
                self._due = time.monotonic() + 1.0 / min(self._speed, FRAMES)
                self._try(self._play_on)
            elif requests and all(action in ("hover", "leave") for action, _ in requests):
                self._mark()  # only the mark has changed
                continue
            if not self._closed:
                self.show()

    def _wait_for_requests(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Wait for requests or until the next round is due; return all queued requests."""
        wait = max(self._due - time.monotonic(), 0.0) if self._playing else None
        found = []
        with suppress(Empty):
            found.append(self._inbox.get(timeout=wait))
            while True:
                found.append(self._inbox.get_nowait())
        return found

    def _try(self, work: Callable[[], None]) -> None:
        """Run ``work``; show errors as the tab's problem, so that the thread continues."""
        try:
            work()
        except FcfnError as error:
            self._problem, self._playing = str(error), False
        except Exception as error:  # without a message the page would stay blank
            if self._closed:  # work was interrupted
                return
            logger.exception("A request of the window failed.")
            self._playing = False
            self._problem = (
                f"An error occurred ({type(error).__name__}: {error}). Press Reset to continue."
            )

    def handle(self, action: str, *arguments: Any) -> None:
        """Carry out a request of the browser; unknown actions are ignored."""
        if action not in ("hover", "leave", "ready"):
            self._problem = ""
        handler = getattr(self, f"_do_{action}", None)
        if handler:
            handler(*arguments)

    # Play

    @property
    def _source(self) -> Source | None:
        return self._sources[0] if self._sources else None

    @property
    def _moment(self) -> int:
        return max((source.moment for source in self._sources), default=0)

    @property
    def _over(self) -> bool:
        return all(source.over for source in self._sources)

    def _open_first(self) -> None:
        """Start with the settings of the link that opened the window, if they are valid."""
        if self._query and not self._opened.record:
            self._try(self._follow_link)
        kept = self._problem
        self._open()
        self._problem = kept

    def _open(self) -> None:
        """Start over: a market at its first round, records at their last."""
        self._problem, self._hovered = "", None
        self._opens += 1
        records = [record for record in (self._opened.record, self._opened.beside) if record]
        if not records:
            self._sources = [LiveMarket(self._scenario)]
            return
        first = not self._sources
        self._sources = [Replay(record) for record in records]
        if not first:
            self._seek(1)

    def _seek(self, moment: int) -> None:
        for source in self._sources:
            source.seek(moment)

    def _do_play(self) -> None:
        if self._source is None:
            return
        if self._source.live:
            self._seek(self._source.moments)
        elif self._over:
            self._seek(1)
        self._playing = not self._over
        self._due = time.monotonic()

    def _do_pause(self) -> None:
        self._playing = False

    def _do_step(self) -> None:
        self._playing = False
        self._step()

    def _do_reset(self) -> None:
        self._playing = False
        self._use(self._scenario)
        self._open()

    def _do_seek(self, moment: int) -> None:
        self._playing = False
        self._seek(int(moment))

    def _do_speed(self, speed: float) -> None:
        self._speed = min(max(float(speed), 0.2), 100.0)

    def _do_ready(self) -> None:
        """Send all columns, because the charts have just appeared or missed an increment."""
        self._feed.restart()

    def _do_colour(self, by: str) -> None:
        if by in ("payment", "utility"):
            self._colour_by = by

    def _play_on(self) -> None:
        self._remainder += self._speed / min(self._speed, FRAMES)
        for _ in range(int(self._remainder)):
            self._step()
        self._remainder %= 1.0

    def _step(self) -> None:
        if self._source and self._source.live:
            if not self._over:
                self._source.step()
        elif not self._over:
            self._seek(self._moment + 1)
        if self._over:
            self._playing = False

    # Nodes

    def _do_pick(self, node: float | None) -> None:
        self._picked = None if node is None else int(node)

    def _do_pick_next(self, steps: int) -> None:
        """Pick the node a number of ranks above the picked one in order of cost."""
        if self._source is None:
            return
        frame = self._source.frame()
        if not frame.nodes.size:
            return
        place = None if self._picked is None else frame.place_of(self._picked)
        rank = -1 if steps > 0 else 0
        if place is not None:
            rank = int(np.flatnonzero(frame.by_cost == place)[0])
        rank = min(max(rank + int(steps), 0), frame.nodes.size - 1)
        self._picked = int(frame.nodes[frame.by_cost[rank]])

    def _do_pick_at(self, name: str, x: float, y: float) -> None:
        picture = self._pictures.get(name)
        found = picture.node_at(float(x), float(y)) if picture else None
        self._picked = self._picked if found is None else found

    def _do_hover(self, name: str, x: float, y: float) -> None:
        """Mark the item at a point of a picture in all pictures."""
        picture, self._hovered = self._pictures.get(name), None
        if picture is None:
            return
        node = picture.node_at(float(x), float(y), radius=12.0)
        ring = picture.rings.ring_at(float(x), float(y)) if picture.rings else None
        if node is not None:
            self._hovered = ("", node)
        elif ring is not None:
            self._hovered = (name, ring)

    def _do_leave(self) -> None:
        self._hovered = None

    def _mark(self) -> None:
        """Send the mark only."""
        self._view = replace(self._view, hover=self._describe_hover())
        self._show(self._view)

    def _describe_hover(self) -> dict[str, Any]:
        if self._hovered is None or self._source is None:
            return {}
        name, number = self._hovered
        frame = self._source.frame()
        if not name:
            place = frame.place_of(number)
            if place is None:
                return {}
            label = pictures.describe_place(frame, place)
            marks = {n: p.mark_node(number) for n, p in self._pictures.items()}
        else:
            rings = self._pictures[name].rings if name in self._pictures else None
            if rings is None or number >= rings.edges.size - 1:
                return {}
            nodes = rings.nodes_in(number)
            first, end = int(rings.edges[number]) + 1, int(rings.edges[number + 1])
            sells = np.count_nonzero(frame.epsilon[frame.by_cost[first - 1 : end]])
            label = f"nodes of rank {first:,} to {end:,} by cost: {sells:,} active"
            marks = {n: p.mark_nodes(nodes) for n, p in self._pictures.items()}
        return {"label": label, "marks": {n: mark for n, mark in marks.items() if mark}}

    # Settings

    def _use(self, scenario: Scenario) -> None:
        """Use a valid scenario from now on."""
        tree, base = settings.tree_of(scenario), settings.tree_of(self._base)
        own = {**tree, "title": self._base.title} == base
        title = self._base.title if own else settings.describe_market(scenario)
        self._scenario = scenario.model_copy(update={"title": title})
        self._tree = {**tree, "title": title}
        self._rejected = {}
        self._groups = [] if self._opened.record else settings.describe_settings(self._tree, base)
        changes = settings.list_changes(self._tree, settings.tree_of(self._opened.scenario))
        self._link = None if changes is None else settings.to_query(changes)

    def _play_anew(self, scenario: Scenario) -> None:
        """Start the market of another valid scenario."""
        self._require_few_nodes(scenario)
        self._use(scenario)
        self._open()

    def _do_set(self, path: str, value: Any) -> None:
        """Change a setting; a valid one restarts the market."""
        if self._opened.record:
            return
        if path not in self._paths():  # hidden settings, such as files to read, stay
            self._problem = f"The window has no setting {abbreviate(path)}."
            return
        self._change(settings.replace_value(self._tree, path, value), path)

    def _do_put_back(self, path: str) -> None:
        """Reset a setting to its value when the market was opened."""
        if not self._opened.record and path in self._paths():
            base = settings.tree_of(self._base)
            self._change(settings.put_back(self._tree, base, path), path)

    def _do_put_all_back(self) -> None:
        if not self._opened.record:
            self._play_anew(self._base)

    def _change(self, tree: settings.Tree, path: str) -> None:
        """Play with new settings, or report what is wrong with them and keep the market."""
        good, base = settings.tree_of(self._scenario), settings.tree_of(self._base)
        self._tree = tree
        self._groups = settings.describe_settings(tree, base)
        problems = settings.find_problems(tree, good, self._parse)
        if not problems:
            self._play_anew(self._parse(tree))
            return
        known = self._paths()
        self._rejected = {
            named if named in known else path: sentence.removeprefix("settings, ")
            for named, sentence in problems.items()
        }

    def _parse(self, tree: settings.Tree) -> Scenario:
        scenario = settings.parse_tree(tree)
        self._require_few_nodes(scenario)
        return scenario

    def _follow_link(self) -> None:
        """Apply the settings of the link."""
        tree = self._tree
        for path, value in settings.parse_query(self._query).items():
            if path not in settings.list_paths(tree):
                raise InvalidScenarioError(
                    f"there is no setting {abbreviate(path)}; the link's settings were ignored.",
                    file="the link",
                )
            tree = settings.replace_value(tree, path, value)
        problems = settings.find_problems(tree, self._tree, self._parse)
        for sentence in problems.values():
            what = sentence.removeprefix("settings, ")
            raise InvalidScenarioError(f"{what} The link's settings were ignored.", file="the link")
        self._use(self._parse(tree))

    def _paths(self) -> set[str]:
        """Return the paths of the shown settings."""
        return {control["path"] for group in self._groups for control in group["controls"]}

    def _require_few_nodes(self, scenario: Scenario) -> None:
        """Limit the nodes of one tab, unless the opened scenario has more."""
        most = max(settings.MOST_NODES, self._opened.scenario.population.n_nodes)
        if scenario.population.n_nodes > most:
            raise InvalidScenarioError(
                f"must be at most {most:,} in the window; a scenario file can have more.",
                file="settings",
                table="population",
                key="n_nodes",
            )

    # Files

    def _do_upload(self, name: str, part: int, n_parts: int, content: str) -> None:
        """Receive a part of a file in base 64; the last part opens the file."""
        if self._opened.record:
            return
        if part == 0:
            self._parts = []
        if not 1 <= n_parts <= MOST_PARTS or part != len(self._parts) or part >= n_parts:
            self._parts = []
            raise InvalidScenarioError(
                f"The file is incomplete or larger than {files.MOST_BYTES >> 20} MiB; open it "
                "again."
            )
        self._parts.append(content)
        if part + 1 < n_parts:
            return
        parts, self._parts = self._parts, []
        try:
            content_bytes = b"".join(base64.b64decode(text, validate=True) for text in parts)
        except (binascii.Error, ValueError):
            raise InvalidScenarioError("The file is incomplete; open it again.") from None
        scenario = files.read_file(name, content_bytes, self._scenario, self._opened.scenario)
        self._require_few_nodes(scenario)
        if name.lower().endswith(".toml"):
            title = scenario.title or settings.describe_market(scenario)
            self._base = scenario = scenario.model_copy(update={"title": title})
        self._playing = False
        self._play_anew(scenario)

    def _do_download(self, what: str) -> None:
        """Send the browser a file to save."""
        name = self._file_name()
        if what == "scenario":
            header = "Scenario of the window, with all settings."
            self._deliver("scenario.toml", to_toml(self._scenario, header).encode())
        elif what == "record" and isinstance(self._source, LiveMarket):
            self._deliver(f"{name}.zip", files.zip_record(self._source.record(), name))

    def _file_name(self) -> str:
        """Return the file name of the record: the first words of the title."""
        words = re.findall(r"[a-z0-9]+", (self._scenario.title or self._opened.name).lower())
        return "-".join(words[:6]) or "market"

    # Pins

    def _do_pin(self) -> None:
        """Pin the shown run, to compare others with it."""
        if not isinstance(self._source, LiveMarket):
            return
        if not self._source.moments:
            self._problem = "No round has been played yet, so there is no run to pin."
            return
        if len(self._pins) == MOST_PINS:
            self._problem = f"{MOST_PINS} runs are pinned, the maximum; unpin one first."
            return
        self._n_pinned += 1
        free = [colour for colour in COLOURS if colour not in {pin.colour for pin in self._pins}]
        pin = take_run(f"run {self._n_pinned}", free[0], self._source.latest())
        self._pins.append(pin)

    def _do_unpin(self, name: str) -> None:
        self._pins = [pin for pin in self._pins if pin.name != name]

    def _do_use(self, name: str) -> None:
        """Play the settings of a pinned run."""
        for pin in self._pins:
            if pin.name == name:
                self._playing = False
                self._play_anew(pin.scenario)

    # View

    def show(self) -> None:
        """Send the current state to the browser."""
        opened = self._opened
        title = self._scenario.title or opened.name
        if opened.beside:
            title = f"{opened.name} and {opened.beside_name}"
        view = View(
            title=title,
            subtitle=self._describe_changes(),
            rejected=self._rejected,
            live=opened.record is None,
            playing=self._playing,
            speed=self._speed,
            colour_by=self._colour_by,
            picked=self._picked,
            groups=self._groups,
            link=self._link,
        )
        self._try(lambda: self._fill(view))
        view.playing = self._playing
        view.problem = self._problem
        self._view = view
        self._show(view)

    def _describe_changes(self) -> str:
        """Describe which settings differ from those the market was opened with."""
        base, title = self._base, self._base.title or self._opened.name
        if self._opened.beside or self._scenario == base:
            return ""
        changed = [
            control["label"]
            for group in self._groups
            for control in group["controls"]
            if control["changed"] and control["path"] not in self._rejected
        ]
        what = ", ".join(changed) or "costs"
        if title == self._scenario.title:
            return f"Changed settings: {what}."
        return f"Opened as \u201c{title}\u201d; changed settings: {what}."

    def _fill(self, view: View) -> None:
        source = self._source
        if source is None:
            return
        frames = [one.frame() for one in self._sources]
        frame = frames[0]
        looks_back = source.live and source.moment < source.moments
        latest = source.latest() if looks_back else frame
        view.over, view.moment = self._over, self._moment
        view.first_moment = min(one.first_moment for one in self._sources)
        view.moments = max(one.moments for one in self._sources)
        view.note, view.n_nodes = " ".join(f.note for f in frames if f.note), frame.n_nodes
        view.can_pin = source.live and source.moments > 0
        view.status, view.tone = self._describe_status(frames)
        view.tiles = list_tiles(frames)
        self._pictures = self._draw(frames)
        view.pictures = [_to_dict(p) for p in self._pictures.values()]
        runs = self._list_runs(frames, latest)
        ghosts = [run.ghost for run in runs[1:]]
        view.runs = compare_runs(runs, self._find_differences(runs)) if len(runs) > 1 else []
        view.charts = [asdict(chart) for chart in describe_charts(latest, ghosts)]
        view.marker = frame.round if frame.round < latest.round else None
        self._push(latest, ghosts)
        view.hover = self._describe_hover()
        if self._picked is not None:
            view.node_details = self._describe_picked(frames, self._picked)
            if frame.place_of(self._picked) is not None:
                known = source.path(self._picked)
                view.path = _to_dict(pictures.draw_node_path(frame, self._picked, known))

    def _describe_status(self, frames: Sequence[Frame]) -> tuple[str, str]:
        lines = [
            describe_status(source, frame, playing=self._playing)
            for source, frame in zip(self._sources, frames, strict=True)
        ]
        if len(lines) == 1:
            return lines[0]
        names = (self._opened.name, self._opened.beside_name)
        words = " ".join(f"{name}: {words}" for name, (words, _) in zip(names, lines, strict=True))
        tones = {tone for _, tone in lines}
        return words, tones.pop() if len(tones) == 1 else "alert" if "alert" in tones else "calm"

    def _describe_picked(self, frames: Sequence[Frame], node: int) -> list[str]:
        """Describe a node, in each shown record."""
        both = [
            describe_node(frame, source, node)
            for frame, source in zip(frames, self._sources, strict=True)
        ]
        if len(both) == 1:
            return both[0]
        names = (self._opened.name, self._opened.beside_name)
        return [f"{name}: {' '.join(said)}" for name, said in zip(names, both, strict=True)]

    def _draw(self, frames: Sequence[Frame]) -> dict[str, Picture]:
        """Draw the pictures of all frames, with those of one kind side by side."""
        if len(frames) == 1:
            drawn = draw_pictures(frames[0], self._colour_by, self._picked)
            return {picture.name: picture for picture in drawn}
        names = (self._opened.name, self._opened.beside_name)
        both = [draw_pictures(frame, self._colour_by, self._picked) for frame in frames]
        found = {}
        for pair in zip(*both, strict=True):
            for picture, name, end in zip(pair, names, ("", _BESIDE), strict=True):
                title = f"{picture.title}: {name}"
                alt = f"{name}: {picture.alt}"
                found[picture.name + end] = replace(
                    picture, name=picture.name + end, title=title, alt=alt
                )
        return found

    def _list_runs(self, frames: Sequence[Frame], latest: Frame) -> list[Run]:
        """Return the shown run and the runs it is compared with."""
        if len(frames) > 1:
            names = (self._opened.name, self._opened.beside_name)
            return [
                take_run(name, colour, frame, copy=False)
                for name, colour, frame in zip(names, ("", COLOURS[0]), frames, strict=True)
            ]
        if not self._pins:
            return []
        return [take_run(SHOWN, "", latest, copy=False), *self._pins]

    def _find_differences(self, runs: Sequence[Run]) -> list[list[tuple[str, str]]]:
        """Return the settings in which runs differ; cached while the runs are the same."""
        scenarios = [run.scenario for run in runs]
        before, found = self._differences
        if [id(one) for one in before] != [id(one) for one in scenarios]:
            found = list_differences(scenarios)
            self._differences = (scenarios, found)
        return found

    def _push(self, latest: Frame, ghosts: Sequence[Any]) -> None:
        """Send the columns behind the charts."""
        self._feed.push(list_tables(latest), self._opens)
        for ghost in ghosts:
            tables = {f"{ghost.name}/{table}": columns for table, columns in ghost.tables.items()}
            self._feed.push(tables, self._opens if self._opened.beside else 0)


def _to_dict(picture: Picture) -> dict[str, str]:
    return {
        "name": picture.name,
        "title": picture.title,
        "alt": picture.alt,
        "svg": picture.svg,
    }

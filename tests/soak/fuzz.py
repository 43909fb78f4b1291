"""Bad input: whatever stands in a file, a user gets a sentence and never a traceback.

Each target takes bytes, builds an input of them, and raises unless the program takes it or refuses
it with one of its own errors. Random mutation drives them here, and Atheris by what they cover.
"""

from __future__ import annotations

import io
import json
import os
import random
import string
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import FcfnError, RunFailedError
from soak.works import SWEEP, TRAINING

type Counts = Counter[str]
type Target = Callable[[bytes], str]

_SMALL = 64
"""Most nodes of a scenario that is played, and not only read."""
_FEW, _BATCH, _FIRST = 4, 32, 2  # nodes that train; samples of a step; runs of a sweep
_TRAINS = find_spec("torch") is not None
_DRAWN = "fcfn_abm.report.figures.files.svg_of"
_HOSTILE: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 2**31, 2**63 - 1, -(2**63), 10**30, 0.0, -0.0, 1e-308, 5e-324, 1e308,
    float("nan"), float("inf"), float("-inf"), 0.5, 1.0, 1e-9, 1e9, True, False, "", " ", "\x00",
    "../../etc/passwd", "/dev/null", "<script>alert(1)</script>", "a" * 5000, "%s%n", "ünïcode",
    [], [[]], [[[[[[1]]]]]], {}, {"kind": "x"}, {"kind": "uniform", "low": 1.0, "high": 0.5},
    "uniform", "divergence", "parquet:../..", "none", "all", "last:3", "last:0", "fixed", "💥",
)  # fmt: skip


def text_of_scenarios(data: bytes) -> str:
    """Read bytes as a scenario file."""
    path = _scratch() / "scenario.toml"
    path.write_bytes(data)
    return _refused_or(lambda: fa.load_scenario(path))


def trees_of_scenarios(data: bytes) -> str:
    """Put hostile values in the places of a real scenario, and play what is still one."""
    chance = random.Random(data)
    tree = json.loads(chance.choice(_real_scenarios()))
    for _ in range(chance.randint(1, 4)):
        _spoil_tree(tree, chance)
    path = _scratch() / "tree.toml"
    try:
        path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    except (TypeError, ValueError):  # not TOML
        return "not TOML"
    return _refused_or(lambda: _played(path))


def overrides(data: bytes) -> str:
    """Take bytes as what stands behind --set."""
    chance = random.Random(data)
    text = data.decode("utf-8", errors="replace")
    if chance.random() < 0.7:
        places = _places(json.loads(chance.choice(_real_scenarios())))
        value = chance.choice((text, json.dumps(chance.choice(_HOSTILE), default=str)))
        text = f"{'.'.join(chance.choice(places))}={value}"
    return _refused_or(lambda: fa.load_scenario(_plain(), [text]))


def images(data: bytes) -> str:
    """Read bytes, or damaged Parquet, as training images."""
    from fcfn_abm.training.parquet import parquet_source

    chance = random.Random(data)
    path = _scratch() / "images.parquet"
    path.write_bytes(_damaged(_good_images(chance.randrange(4)), data, chance))

    def read() -> None:
        source = parquet_source(path)
        part = source.train
        part.pixels(np.arange(min(len(part.labels), 4)))

    return _refused_or(read)


def records(data: bytes) -> str:
    """Damage a file of a folder of results that has no checksums, and do all that one can with it.

    Folders are of a run, one that trained, a comparison, a calibration, and a sweep with its table
    and without.
    """
    chance = random.Random(data)
    folder = chance.choice(_folders())
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in {".parquet", ".json", ".toml"}
    )
    path = chance.choice((*files, *[folder / "run.json"] * len(files)))  # one half the facts
    good = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.8:
        path.write_text(_other_facts(good, chance), encoding="utf-8")
    elif path.suffix == ".parquet" and chance.random() < 0.5:
        pq.write_table(_other_table(pq.read_table(path), chance), path)
    else:
        path.write_bytes(_damaged(good, data, chance))
    draws = chance.random() < 0.01  # which takes seconds
    try:
        outcomes = [_refused_or(lambda: fa.read_record(folder).traces)] if _is_run(folder) else []
        # numbers that no run gives may overflow, and NumPy says so
        uses = _uses(folder, draws=draws)
        outcomes += [_refused_or(lambda use=use: use(folder), "ignore") for use in uses]
    finally:
        path.write_bytes(good)
    return "refused" if "refused" in outcomes else "taken"


def _uses(folder: Path, *, draws: bool) -> list[Callable[[Path], Any]]:
    """Return what the program does with a folder of results."""

    def report(folder: Path) -> None:
        with nullcontext() if draws else patch(_DRAWN, lambda _: "<svg/>"):
            for form in ("html", "md"):
                fa.write_report(folder, _scratch() / "report", form, overwrite=True)

    uses: list[Callable[[Path], Any]] = [report]
    if _is_run(folder):
        uses.append(_replayed)
    if "trained" in folder.name:
        uses += [fa.export_plan, lambda folder: fa.export_plan(folder, format="csv")]
    return uses


def _is_run(folder: Path) -> bool:
    return (folder / "nodes.parquet").is_file()


def _replayed(folder: Path) -> None:
    """Look at a record as the window does, at its beginning, in between, and at its end."""
    from fcfn_abm.viz.charts import describe_charts, list_tables
    from fcfn_abm.viz.node_details import describe_node
    from fcfn_abm.viz.replay import Replay
    from fcfn_abm.viz.session import open_source
    from fcfn_abm.viz.view import draw_pictures, list_tiles

    replay = Replay(open_source(folder).record)
    for moment in (1, replay.moments // 2, replay.moments):
        replay.seek(moment)
        frame = replay.frame()
        list_tiles([frame])
        draw_pictures(frame, "payment", 0)
        describe_charts(frame)
        list_tables(frame)
        describe_node(frame, replay, 0)
        assert replay.verdict is None or replay.verdict["kind"]


TARGETS: dict[str, Target] = {
    "scenario files": text_of_scenarios,
    "scenario values": trees_of_scenarios,
    "overrides": overrides,
    "images": images,
    "records": records,
}


def campaign(name: str, n: int, seed: int) -> Counts:
    """Give a target ``n`` random inputs; raise at the first that it does not survive."""
    target, counts, chance = TARGETS[name], Counter[str](), random.Random(seed)
    seeds = [json.loads(text) for text in _real_scenarios()]
    for index in range(n):
        data = chance.randbytes(chance.choice((4, 40, 400)))
        if name == "scenario files":
            data = _mutated(tomli_w.dumps(chance.choice(seeds)).encode(), chance)
        try:
            counts[target(data)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, input {index} of seed {seed}: {data[:500]!r}") from error
    return counts


def _refused_or(action: Callable[[], Any], warned: Any = "error") -> str:
    with warnings.catch_warnings():
        warnings.simplefilter(warned)
        try:
            action()
        except FcfnError as error:
            message = str(error)
            assert not isinstance(error, RunFailedError), f"exit code 1: {message}"
            assert message.strip(), "an empty sentence"
            assert len(message) < 3000, "a sentence that nobody reads"
            return "refused"
    return "taken"


def _played(path: Path) -> None:
    scenario = fa.load_scenario(path)
    runs = [scenario]
    if scenario.sweep:
        runs = [run.scenario for run in build.list_runs(build.resolve_defaults(scenario))[:_FIRST]]
    for run in runs:
        if run.population.n_nodes <= _SMALL and (not run.trains or _trains_little(run)):
            _play_short(run)


def _trains_little(scenario: fa.Scenario) -> bool:
    """Whether a training is one that these campaigns have the time for."""
    training = scenario.training
    return (
        _TRAINS
        and training is not None
        and scenario.population.n_nodes <= _FEW
        and training.data.kind == "digits"
        and training.net.options.get("width", 8) <= 8
        and training.local_epochs <= 2
        and (training.batch_size or _BATCH) >= _BATCH
        and training.engine in ("auto", "serial")
    )


def _play_short(scenario: fa.Scenario) -> None:
    tree = scenario.model_dump()
    tree["rounds"]["maximum"] = min(scenario.rounds.maximum, 8)
    if scenario.trains:
        tree["training"]["rounds"] = 1
    try:
        record = fa.run_scenario(type(scenario).model_validate(tree))
    except RunFailedError:
        if scenario.trains:  # too large a step leads anywhere, and the run says so
            return
        raise
    paid = record.rounds[record.rounds["budget"] > 0]  # shares of nothing are infinite
    for frame in (paid.drop(columns="change"), record.nodes):
        numbers = frame.select_dtypes("number").to_numpy(dtype=float, na_value=0.0)
        assert not np.isinf(numbers).any(), "infinite results"


def _places(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return [path]
    return [path, *(place for key in tree for place in _places(tree[key], (*path, key)))][
        bool(not path) :
    ]


def _spoil_tree(tree: dict[str, Any], chance: random.Random) -> None:
    *above, last = chance.choice(_places(tree))
    for key in above:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            return
    kind = chance.random()
    if kind < 0.1:
        tree.pop(last, None)
    elif kind < 0.2:
        tree[chance.choice((last + "s", "x" * 50, "<b>", "", "kind"))] = chance.choice(_HOSTILE)
    elif kind < 0.6 and isinstance(tree.get(last), (int, float)):
        tree[last] = tree[last] * chance.choice((0, -1, 1e-30, 1e30, 1e300, 0.5, 2, 10))
    else:
        tree[last] = chance.choice(_HOSTILE)


def _other_facts(good: bytes, chance: random.Random) -> str:
    """Take facts out, or replace them, at any depth."""
    facts = json.loads(good)
    for _ in range(chance.randint(1, 3)):
        holders = _holders(facts)
        if not holders:
            break
        holder = chance.choice(holders)
        key = chance.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
        if chance.random() < 0.4:
            del holder[key]
        else:
            holder[key] = deepcopy(chance.choice(_HOSTILE))
    return json.dumps(facts if chance.random() < 0.95 else chance.choice(_HOSTILE))


def _holders(tree: Any) -> list[Any]:
    """Return all tables and lists that hold something."""
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = [tree] if below else []
    return [*own, *(holder for value in below for holder in _holders(value))]


def _other_table(table: pa.Table, chance: random.Random) -> pa.Table:
    """Take a column out, or replace its values, or all rows but the first few."""
    name = chance.choice(table.column_names)
    kind = chance.randrange(4)
    if kind == 0:
        return table.drop_columns([name])
    if kind == 1:
        return table.slice(0, chance.randrange(3))
    place = table.column_names.index(name)
    if kind == 2:
        values = pa.array([chance.choice(("x", "1", None)) for _ in range(len(table))], pa.string())
    else:
        hostile: list[Any] = [0, 1, -1, None, 2**31, 2**63 - 1]
        of = table.schema.field(place).type
        if pa.types.is_floating(of):
            hostile = [None, 0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324]
        elif not pa.types.is_integer(of):
            hostile = [None]
        value = chance.choice(hostile)
        some = [value if chance.random() < 0.5 else v for v in table[name].to_pylist()]
        values = pa.array(some, of)
    return table.set_column(place, name, values)


def _mutated(data: bytes, chance: random.Random) -> bytes:
    text = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            text[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == 1:
            del text[at : at + chance.randint(1, 40)]
        elif kind == 2:
            text[at:at] = chance.choice(
                (b"[[", b"]]", b'"""', b"= ", b"\n", b"{", b"}", b"#")
            ) * chance.choice((1, 2, 3000))
        elif kind == 3:
            text[at : at + 1] = bytes(chance.choices(string.printable.encode(), k=3))
        elif kind == 4:
            text[at:at] = str(chance.choice(_HOSTILE)).encode()
        else:
            start = chance.randrange(len(text) + 1)
            text[at:at] = text[start : start + chance.randint(1, 80)]
    return bytes(text)


def _damaged(good: bytes, data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(good)
    kind = chance.randrange(5)
    if kind == 0:
        return data
    if kind == 1:
        return bytes(spoilt[: chance.randrange(len(spoilt))])
    if kind == 2:
        at = chance.randrange(len(spoilt))
        spoilt[at : at + len(data)] = data
        return bytes(spoilt)
    for _ in range(chance.randint(1, 8)):
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    return bytes(spoilt)


@cache
def _real_scenarios() -> tuple[str, ...]:
    files = sorted(Path("scenarios/dynamics").glob("*.toml"))
    files += sorted(Path("scenarios/heterogeneity").glob("*.toml"))
    files += [Path("scenarios/quickstart.toml"), Path("scenarios/privacy/free_riders.toml")]
    dumps = []
    for file in files:
        tree = fa.load_scenario(file).model_dump(mode="json", exclude_none=True)
        most = _FEW if "training" in tree else _SMALL
        tree["population"]["n_nodes"] = min(tree["population"]["n_nodes"], most)
        dumps.append(json.dumps(tree))
    return tuple(dumps)


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fcfn-fuzz-"))


@cache
def _plain() -> Path:
    return _text("plain.toml", "[population]\nn_nodes = 5\n")


def _text(name: str, text: str) -> Path:
    path = _scratch() / name
    path.write_text(text, encoding="utf-8")
    return path


@cache
def _good_images(kind: int) -> bytes:
    from PIL import Image

    def encoded(size: int, mode: str) -> dict[str, bytes]:
        into = io.BytesIO()
        Image.new(mode, (size, size)).save(into, "PNG")
        return {"bytes": into.getvalue()}

    rows = [encoded(8, "L" if kind % 2 else "RGB") for _ in range(6)]
    if kind == 2:
        rows[3] = encoded(9, "RGB")
    labels: list[Any] = [0, 1, 2, 0, 1, 2 if kind < 3 else None]
    into = io.BytesIO()
    pq.write_table(pa.table({"image": rows, "label": labels}), into)
    return into.getvalue()


@cache
def _folders() -> tuple[Path, ...]:
    """Return a folder of results of each kind, without checksums."""
    cold, below = "scenarios/dynamics/cold-start.toml", _scratch() / f"results-{os.getpid()}"
    few = ["population.n_nodes=4", "training.rounds=1"]
    swept = fa.load_scenario(_text("swept.toml", SWEEP))
    fa.run_scenario(
        fa.load_scenario(cold, ["record.traces='all'", "rounds.maximum=4"]), below / "run"
    )
    fa.compare_mechanisms(fa.load_scenario(cold), replications=2, out=below / "comparison")
    fa.run_sweep(swept, below / "sweep")
    fa.run_sweep(swept, below / "begun")
    (below / "begun" / "sweep.parquet").unlink()
    if _TRAINS:
        fa.run_scenario(fa.load_scenario("quickstart", few), below / "trained")
        learns = _text("learns.toml", TRAINING)
        fa.calibrate_value(fa.load_scenario(learns), [1.0, 30.0, 1e3], 1, below / "calibration")
    for sums in below.rglob("SHA256SUMS"):
        sums.unlink()
    return tuple(sorted(below.iterdir()))

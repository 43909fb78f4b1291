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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

import fcfn_abm as fa
from fcfn_abm.errors import FcfnError

type Counts = Counter[str]
type Target = Callable[[bytes], str]

_SMALL = 64
"""Most nodes of a scenario that is played, and not only read."""
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
    from fcfn_abm.training.sources import parquet_source

    chance = random.Random(data)
    path = _scratch() / "images.parquet"
    path.write_bytes(_damaged(_good_images(chance.randrange(4)), data, chance))

    def read() -> None:
        source = parquet_source(path)
        part = source.train
        part.pixels(np.arange(min(len(part.labels), 4)))

    return _refused_or(read)


def records(data: bytes) -> str:
    """Damage a file of a record that has no checksums, and read all of it."""
    chance = random.Random(data)
    folder = _record()
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in {".parquet", ".json", ".toml"}
    )
    path = chance.choice(files)
    good = path.read_bytes()
    path.write_bytes(_damaged(good, data, chance))
    try:
        return _refused_or(lambda: fa.read_record(folder).traces)
    finally:
        path.write_bytes(good)


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


def _refused_or(action: Callable[[], Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            action()
        except FcfnError as error:
            told = str(error)
            assert told.strip(), "an empty sentence"
            assert len(told) < 3000, "a sentence that nobody reads"
            return "refused"
    return "taken"


def _played(path: Path) -> None:
    scenario = fa.load_scenario(path)
    if scenario.population.n_nodes > _SMALL or scenario.trains or scenario.sweep:
        return
    tree = scenario.model_dump()
    tree["rounds"]["maximum"] = min(scenario.rounds.maximum, 8)
    record = fa.run_scenario(type(scenario).model_validate(tree))
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
        tree["population"]["n_nodes"] = min(tree["population"]["n_nodes"], _SMALL)
        dumps.append(json.dumps(tree))
    return tuple(dumps)


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fcfn-fuzz-"))


@cache
def _plain() -> Path:
    path = _scratch() / "plain.toml"
    path.write_text("[population]\nn_nodes = 5\n", encoding="utf-8")
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
def _record() -> Path:
    scenario = fa.load_scenario(
        "scenarios/dynamics/cold-start.toml", ["record.traces='all'", "rounds.maximum=4"]
    )
    folder = _scratch() / f"record-{os.getpid()}"
    fa.run_scenario(scenario, folder)
    (folder / "SHA256SUMS").unlink()
    return folder

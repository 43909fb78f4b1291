"""Report of several runs, or several sweeps, side by side."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fcfn_abm.errors import InvalidRecordError
from fcfn_abm.records import Record
from fcfn_abm.report.blocks import (
    Block,
    Code,
    Fact,
    Facts,
    Page,
    Picture,
    Section,
    Table,
    Terms,
    Words,
    format_count,
    number,
)
from fcfn_abm.report.estimates import (
    ANY,
    BOUNDS,
    MEDIANS,
    Average,
    average,
    average_paired,
    interval,
    is_skewed,
)
from fcfn_abm.report.figures.several import several_accuracies, several_rounds
from fcfn_abm.report.figures.sweeps import label_of
from fcfn_abm.report.settings import format_value
from fcfn_abm.report.sweep_page import describe_outcomes

_OUTCOMES: dict[str, tuple[str, Callable[[Record], float | None]]] = {
    "rounds": ("rounds played", lambda record: float(record.run["verdict"]["rounds"])),
    "n_active": ("active nodes", lambda record: _read_market(record, "n_active")),
    "payment": ("payment (currency)", lambda record: _read_market(record, "payment")),
    "total_epsilon": ("total epsilon S", lambda record: _read_market(record, "total_epsilon")),
    "mean_epsilon": ("mean epsilon", lambda record: _read_market(record, "mean_epsilon")),
    "server_utility": (
        "utility of the server (currency)",
        lambda record: _read_market(record, "server_utility"),
    ),
    "node_utility": (
        "utility of all nodes (currency)",
        lambda record: _read_market(record, "node_utility"),
    ),
    "welfare": ("welfare (currency)", lambda record: _read_market(record, "welfare")),
    "exploitability": ("exploitability", lambda record: _read_market(record, "exploitability")),
    "distance": (
        "distance to the closed form",
        lambda record: _read_market(record, "distance"),
    ),
    "accuracy": ("test accuracy", lambda record: _read_training(record, "accuracy")),
    "max_epsilon_total": (
        "largest epsilon spent by a node",
        lambda record: _read_most_spent(record),
    ),
}
_TERMS = {
    "Paired": "runs with the same seed draw the same population, so a difference between them is "
    "due to their settings and not to the draw. The interval is over the seeds.",
    "Exploitability": "the largest gain of any node from changing its epsilon alone, as a share of "
    "the cap B.",
    "Closed form": "the equilibrium computed from all costs: thin dashed lines.",
}
_ROUNDING = 1e-9  # outcomes that differ by less count as equal
_LEAST = {"exploitability": 1.0, "distance": 1.0}  # shares: their scale is one
_NO_RELATIVE = ("exploitability", "distance", "accuracy")  # shares, which are relative already
_WIDE = 5  # most settings shown in columns
_NAME = 34  # longest name made of values, in characters


@dataclass(frozen=True)
class Source:
    """A folder of results, as typed, with its scenario file."""

    name: str
    toml: str
    results: Any
    """A record, or the table of a sweep."""
    run: Mapping[str, Any]
    """Its ``run.json``."""


def runs_page(sources: Sequence[Source]) -> Page:
    """Build the report of several runs.

    Parameters
    ----------
    sources : sequence of Source
        Two or more runs.
    """
    settings = [_flatten(tomllib.loads(source.toml)) for source in sources]
    groups = _group(sources, settings)
    found = {name: [source.results for source in some] for name, some in groups.items()}
    changed = {name: settings[sources.index(some[0])] for name, some in groups.items()}
    table = _tabulate(found)
    design = _describe_design(found)
    sections = [
        _settings_section(changed, groups),
        _outcomes_section(table, list(groups)),
        _curves_section(found, table),
    ]
    if len(groups) > 1:
        sections.insert(2, _differences_section(table, found))
    sections.append(_reproduce(sources))
    n_seeds = len({record.scenario.seed for some in found.values() for record in some})
    return Page(
        title=f"Comparison of {len(sources)} runs",
        subtitle="fcfn_abm runs",
        lead=[
            Facts(
                [
                    Fact("Runs", number(len(sources))),
                    Fact("Different settings", number(len(groups))),
                    Fact("Seeds", number(n_seeds)),
                    Fact("Populations", number(_count_populations(found))),
                ]
            ),
            Words(design),
        ],
        sections=sections,
    )


def sweeps_page(sources: Sequence[Source]) -> Page:
    """Build the report of several sweeps over the same axes.

    Parameters
    ----------
    sources : sequence of Source
        Two or more sweeps; their results are their tables, one row per run.

    Raises
    ------
    InvalidRecordError
        If they share no axis.
    """
    shared = [
        axis for axis in sources[0].run["axes"] if all(axis in s.run["axes"] for s in sources)
    ]
    if not shared and any(source.run["axes"] for source in sources):
        raise InvalidRecordError("The sweeps have no axis in common, so they cannot be compared.")
    names = [source.name for source in sources]
    frame = pd.concat(
        [source.results.assign(sweep=source.name) for source in sources], ignore_index=True
    )
    settings = [
        _flatten({k: v for k, v in tomllib.loads(source.toml).items() if k != "sweep"})
        for source in sources
    ]
    changed = dict(zip(names, settings, strict=True))
    groups = {source.name: [source] for source in sources}
    sections = [_settings_section(changed, groups), *describe_outcomes(frame, ["sweep", *shared])]
    if differences := _sweep_differences(frame, names, shared):
        sections.insert(1, differences)
    sections.append(_reproduce(sources))
    return Page(
        title=f"Comparison of {len(sources)} sweeps",
        subtitle="fcfn_abm sweeps",
        lead=[
            Facts(
                [
                    Fact("Sweeps", number(len(sources))),
                    Fact("Runs", number(len(frame)), "in total"),
                    Fact("Axes in common", number(len(shared)), ", ".join(shared)),
                ]
            )
        ],
        sections=sections,
    )


def _flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return the keys of a scenario as paths with their values as text."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            found |= _flatten(value, path)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for i, entry in enumerate(value, start=1):
                found |= _flatten(entry, f"{path}[{i}]")
        else:
            found[path] = format_value(value)
    return found


def _group(
    sources: Sequence[Source], settings: Sequence[Mapping[str, str]]
) -> dict[str, list[Source]]:
    """Group runs that differ only in their seed, and name each group by its settings."""
    keys = [
        tuple(sorted((k, v) for k, v in tree.items() if k not in ("seed", "title")))
        for tree in settings
    ]
    groups: dict[Any, list[Source]] = {}
    for key, source in zip(keys, sources, strict=True):
        groups.setdefault(key, []).append(source)
    if len(groups) == len(sources) or (len(groups) == 1 and len(sources) <= _WIDE):
        return {source.name: [source] for source in sources}
    changed = _find_changed([dict(key) for key in groups])
    named: dict[str, list[Source]] = {}
    for i, (key, some) in enumerate(groups.items()):
        values = ", ".join(dict(key).get(path, "-") for path in changed)
        name = values if values and len(values) <= _NAME else f"setting {i + 1}"
        named[f"setting {i + 1}" if name in named else name] = some
    return named if len(groups) > 1 else {"all runs": list(sources)}


def _find_changed(trees: Sequence[Mapping[str, str]]) -> list[str]:
    paths = dict.fromkeys(path for tree in trees for path in tree)
    return [path for path in paths if len({tree.get(path) for tree in trees}) > 1]


def _settings_section(
    changed: Mapping[str, Mapping[str, str]], groups: Mapping[str, Sequence[Source]]
) -> Section:
    names = list(changed)
    paths = [
        path for path in _find_changed(list(changed.values())) if path not in ("seed", "title")
    ]
    rows = [[path, *(changed[name].get(path, "-") for name in names)] for path in paths]
    seeds = {
        name: ", ".join(str(source.run["seed"]) for source in some) for name, some in groups.items()
    }
    if len(set(seeds.values())) > 1 or len(names) == 1:
        rows.append(["seed", *(seeds[name] for name in names)])
    versions = {name: str(groups[name][0].run["versions"].get("fcfn_abm")) for name in names}
    if len(set(versions.values())) > 1:
        rows.append(["version of fcfn_abm", *versions.values()])
    if not rows:
        words = "The runs have the same settings and the same seed."
        return Section("Which settings differ", [Words(words)])
    head = ["scenario key", *names]
    if len(names) > _WIDE:
        head, *rows = [list(line) for line in zip(head, *rows, strict=True)]
    everything = frozenset(range(len(head)))
    same = "All other keys are the same." if paths else "All keys but the seed are the same."
    return Section("Which settings differ", [Table(head, rows, note=same, words=everything)])


def _tabulate(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Return setting, seed, verdict and outcomes, one row per run."""
    rows = []
    for name, some in runs.items():
        for record in some:
            outcomes = {key: of(record) for key, (_, of) in _OUTCOMES.items()}
            verdict = record.run["verdict"]["kind"]
            rows.append(
                {"setting": name, "seed": record.scenario.seed, "verdict": verdict, **outcomes}
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(_OUTCOMES, float))


def _read_market(record: Record, name: str) -> float:
    return float(record.run["market"][name])


def _read_training(record: Record, name: str) -> float | None:
    arms = record.run.get("training", {}).get("arms", [])
    return float(arms[0][name]) if arms else None


def _read_most_spent(record: Record) -> float | None:
    spent = record.nodes["epsilon_total"].max() if "training" in record.run else math.nan
    return float(spent) if np.isfinite(spent) else None


def _count_populations(runs: Mapping[str, Sequence[Record]]) -> int:
    return len(
        {record.nodes["rho"].to_numpy().tobytes() for some in runs.values() for record in some}
    )


def _describe_design(runs: Mapping[str, Sequence[Record]]) -> str:
    """Describe how many populations there are, and which runs share one."""
    n_runs, n = sum(map(len, runs.values())), _count_populations(runs)
    if n == 1:
        return (
            f"All {n_runs} runs have the same population: differences are due to their settings, "
            "hold for this population only, and have no intervals over populations."
        )
    seeds = [{record.scenario.seed for record in some} for some in runs.values()]
    common = set.intersection(*seeds)
    if len(runs) == 1:
        return f"The runs differ only in their seed: {n} populations, one setting."
    if not common:
        return "No seed is common to all settings, so differences are not paired."
    same = _count_populations(
        {name: [r for r in some if r.scenario.seed in common] for name, some in runs.items()}
    ) == len(common)
    if same:
        return (
            f"{format_count(len(common), 'seed')} common to all settings: with the same seed the "
            "nodes have the same costs, so differences are paired."
        )
    return (
        f"{format_count(len(common), 'seed')} common to all settings, but the settings of the "
        "population differ, and so do the costs. Differences are paired by the seed."
    )


def _outcomes_section(table: pd.DataFrame, names: Sequence[str]) -> Section:
    groups = {name: table[table["setting"] == name] for name in names}
    counts = {name: len(some) for name, some in groups.items()}
    rows = [["verdict", *(_describe_verdicts(groups[name]["verdict"]) for name in names)]]
    has_median = False
    for key, (label, _) in _OUTCOMES.items():
        found = {name: _average(groups[name][key], key) for name in names}
        if all(of.n == 0 for of in found.values()):
            continue
        as_median = is_skewed(found.values())
        has_median |= as_median
        cells = [_describe(of, as_median=as_median) for of in found.values()]
        rows.append([f"{label}{', median' if as_median else ''}", *cells])
    head = ["", *(f"{name}" if counts[name] == 1 else f"{name} ({counts[name]})" for name in names)]
    notes = []
    if max(counts.values()) > 1:
        notes.append(
            "In parentheses: number of runs. Values are means with 95 % t-intervals over the runs."
        )
    if has_median:
        notes.append(MEDIANS)
    if len(names) > _WIDE:
        head, *rows = [list(line) for line in zip(head, *rows, strict=True)]
    data = table.rename(columns={"setting": "run"}) if max(counts.values()) == 1 else table
    return Section("Results", [Table(head, rows, "Outcomes", " ".join(notes), data=data)])


def _average(values: pd.Series, key: str) -> Average:
    return average(values.dropna().to_numpy(dtype=float), BOUNDS.get(key, ANY))


def _describe(of: Average, *, as_median: bool) -> str:
    return number(of.mean) if of.n == 1 else interval(of, as_median=as_median)


def _describe_verdicts(verdicts: pd.Series) -> str:
    counts = verdicts.value_counts()
    if len(verdicts) == 1:
        return str(verdicts.iloc[0])
    return ", ".join(f"{kind} ({n})" for kind, n in counts.items())


def _differences_section(table: pd.DataFrame, runs: Mapping[str, Sequence[Record]]) -> Section:
    first, *others = runs
    wide = {
        name: table[table["setting"] == name].drop_duplicates("seed").set_index("seed")
        for name in runs
    }
    shared = {name: wide[name].index.intersection(wide[first].index) for name in others}
    rows = []
    for key, (label, _) in _OUTCOMES.items():
        cells = [_differ(wide[name][key], wide[first][key], shared[name]) for name in others]
        if any(cell != "-" for cell in cells):
            rows.append([label, *cells])
    head = ["", *(f"{name} − {first}" for name in others)]
    if len(others) > _WIDE:
        head, *rows = [list(line) for line in zip(head, *rows, strict=True)]
    title = f"Difference from {first}"
    blocks: list[Block] = [Table(head, rows, title, _describe_pairs(shared))]
    if nodes := _compare_nodes(runs, first, others):
        blocks.append(nodes)
    return Section("Differences", [*blocks, Terms(_TERMS)])


def _describe_pairs(shared: Mapping[str, pd.Index]) -> str:
    counts = {len(seeds) for seeds in shared.values()}
    if counts == {0}:
        return "Not paired: no seed is shared. Settings with two or more runs have Welch intervals."
    if counts == {1}:
        return (
            "Paired over one shared seed: one difference, without an interval. In parentheses: the "
            "relative difference; - if the base is zero."
        )
    n = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return (
        f"Paired over {n} shared seeds: mean difference and half of its 95 % t-interval. If the "
        "interval excludes zero, the settings differ at the 95 % level."
    )


def _differ(values: pd.Series, others: pd.Series, shared: pd.Index) -> str:
    """Format a difference: paired if seeds are shared, otherwise with Welch's interval."""
    if len(shared):
        size = max(
            float(values.abs().max()), float(others.abs().max()), _LEAST.get(str(values.name), 0.0)
        )
        apart = (values[shared] - others[shared]).dropna().to_numpy(dtype=float)
        apart = np.where(np.abs(apart) <= _ROUNDING * size, 0.0, apart)
        if apart.size != 1:
            return interval(average(apart))
        difference, before = float(apart[0]), abs(float(others[shared].iloc[0]))
        if values.name in _NO_RELATIVE:
            return number(difference)
        relative = f"{difference / before:+.1%}" if before > _ROUNDING * size else "-"
        return f"{number(difference)} ({relative})"
    a, b = (x.dropna().to_numpy(dtype=float) for x in (values, others))
    if not (a.size and b.size):
        return "-"
    difference = float(a.mean() - b.mean())
    if min(a.size, b.size) < 2:
        return number(difference)
    from scipy.stats import ttest_ind  # takes a second to load

    if a.std() == 0 and b.std() == 0:
        return f"{number(difference)} ± 0"
    low, high = ttest_ind(a, b, equal_var=False).confidence_interval()
    return f"{number(difference)} ({number(float(low))} to {number(float(high))})"


def _compare_nodes(
    runs: Mapping[str, Sequence[Record]], first: str, others: Sequence[str]
) -> Table | None:
    """Count nodes by the settings in which they take part, if the populations are equal."""
    rows = []
    for name in others:
        counts = np.zeros(4, dtype=int)
        for a, b in _pair(runs[first], runs[name]):
            before, after = (record.nodes["active"].to_numpy() for record in (a, b))
            counts += [
                int(part.sum())
                for part in (before & after, before & ~after, ~before & after, ~before & ~after)
            ]
        if counts.sum():
            rows.append([name, *(f"{n:,}" for n in counts)])
    if not rows:
        return None
    head = ["", "active in both", f"only in {first}", "only in this one", "in neither"]
    return Table(head, rows, f"The same nodes, compared with {first}")


def _pair(some: Sequence[Record], others: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    by_seed = {record.scenario.seed: record for record in some}
    for other in others:
        record = by_seed.get(other.scenario.seed)
        if record is not None and np.array_equal(record.nodes["rho"], other.nodes["rho"]):
            yield record, other


def _curves_section(runs: Mapping[str, Sequence[Record]], table: pd.DataFrame) -> Section:
    names = ", ".join(runs)
    rounds = pd.concat(
        [
            record.rounds.assign(setting=name, seed=record.scenario.seed)
            for name, some in runs.items()
            for record in some
        ],
        ignore_index=True,
    )
    first = ["setting", "seed", "round"]
    rounds = rounds[[*first, *(c for c in rounds.columns if c not in first)]]
    blocks: list[Block] = [
        Picture(
            "rounds",
            several_rounds(runs),
            f"Six quantities by round, of {names}: total epsilon, active nodes, "
            "exploitability, payment, and the utilities. The table of outcomes lists the final "
            "outcomes.",
            "One line per run. Thin dashed lines: closed form.",
            rounds,
            "rounds.parquet of each run",
            interactive=True,
        )
    ]
    if table["accuracy"].notna().any():
        ends = ", ".join(f"{of:.1%}" for of in table["accuracy"].dropna())
        blocks.append(
            Picture(
                "accuracies",
                several_accuracies(runs),
                f"Test accuracy by round, ending at {ends}.",
                "Nets trained with the epsilon of each market.",
                _stack_training(runs),
                "training.parquet of each run",
                interactive=True,
            )
        )
    return Section("Curves", blocks)


def _stack_training(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    return pd.concat(
        [
            record.training[["round", "arm", "accuracy"]].assign(
                setting=name, seed=record.scenario.seed
            )
            for name, some in runs.items()
            for record in some
            if not record.training.empty
        ],
        ignore_index=True,
    )


def _sweep_differences(
    frame: pd.DataFrame, names: Sequence[str], axes: Sequence[str]
) -> Section | None:
    """Return the mean differences between sweeps over the points and seeds that they share."""
    done = frame[frame["status"] == "done"]
    outcomes = [
        key for key in ("participation", *_OUTCOMES) if key in done and done[key].notna().any()
    ]
    first, *others = names
    keys = [*axes, "seed"]
    before = done[done["sweep"] == first].drop_duplicates(keys)
    rows, n_pairs = [], {}
    for key in outcomes:
        cells = []
        for name in others:
            after = done[done["sweep"] == name].drop_duplicates(keys)
            both = before[[*keys, key]].merge(after[[*keys, key]], on=keys)
            n_pairs[name] = len(both)
            apart = both[f"{key}_y"] - both[f"{key}_x"]
            cells.append(interval(average_paired(apart, both["seed"])))
        rows.append([label_of(key), *cells])
    if not any(n_pairs.values()):
        return None
    pairs = ", ".join(f"{n:,} with {name}" for name, n in n_pairs.items())
    words = (
        f"Runs with the same seed at the same point are paired: {pairs}. Differences are averaged "
        "over the points of a seed; intervals are over the seeds."
    )
    head = ["", *(f"{name} − {first}" for name in others)]
    table = Table(head, rows, f"Difference from {first}, mean over shared points")
    return Section("Differences", [Words(words), table])


def _reproduce(sources: Sequence[Source]) -> Section:
    blocks: list[Block] = [
        Code(f"{'fcfn report'} {' '.join(source.name for source in sources)}"),
        *(
            Code(source.toml.strip(), "toml", f"The scenario of {source.name}")
            for source in sources
        ),
    ]
    return Section("How to reproduce the report", blocks)

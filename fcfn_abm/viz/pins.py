"""Pinned runs, with which the shown run is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcfn_abm.scenario import Scenario
from fcfn_abm.viz import settings
from fcfn_abm.viz.charts import Columns, Ghost, list_tables
from fcfn_abm.viz.frame import Frame
from fcfn_abm.viz.labels import name_choice, name_key
from fcfn_abm.viz.svg import number

COLOURS = ("#CC79A7", "#8C6D1F", "#56B4E9", "#882255", "#117733", "#E69F00")
"""Colours of pinned runs, distinct from those of the charts' own lines."""
MOST_PINS = len(COLOURS)
SHOWN = "now"
"""Name of the shown run."""

_MEASURES = (
    ("Rounds", "round"),
    ("Payment cap B", "budget"),
    ("Active nodes", "n_active"),
    ("Total epsilon S", "total_epsilon"),
    ("Utility of all nodes", "node_utility"),
    ("Utility of the server", "server_utility"),
)
_LONGEST = 24


@dataclass(frozen=True)
class Run:
    """A compared run: its final measures and its curves."""

    name: str
    colour: str
    scenario: Scenario
    latest: Mapping[str, str]
    """Measures of its last round as text."""
    tables: Mapping[str, Columns]
    """The columns of its curves, by the name of the charts' tables."""

    @property
    def ghost(self) -> Ghost:
        """The curves of this run in the charts."""
        return Ghost(self.name, self.colour, self.tables)


def take_run(name: str, colour: str, frame: Frame, *, copy: bool = True) -> Run:
    """Return the state of a run for comparison.

    Parameters
    ----------
    name, colour : str
        Its name and colour.
    frame : Frame
        Its current state.
    copy : bool, default True
        Whether to copy its curves, so that further rounds do not change them.
    """
    history = frame.history
    latest = {label: number(history[key][-1]) if frame.round else "-" for label, key in _MEASURES}
    tables = list_tables(frame)
    if copy:
        tables = {
            table: {
                column: np.array(values, dtype=float).tolist() for column, values in columns.items()
            }
            for table, columns in tables.items()
        }
    if frame.training:
        curves = frame.training.curves.values()
        accuracy = next((values for _, values in curves if len(values)), None)
        latest["Test accuracy"] = f"{accuracy[-1]:.1%}" if accuracy else "-"
    return Run(name, colour, frame.scenario, latest, tables)


def _copy(columns: Columns) -> dict[str, list[float]]:
    return {name: np.array(values, dtype=float).tolist() for name, values in columns.items()}


def list_differences(scenarios: Sequence[Scenario]) -> list[list[tuple[str, str]]]:
    """Return the settings in which scenarios differ: for each, pairs of label and text."""
    flat = [dict(_leaves(settings.tree_of(scenario))) for scenario in scenarios]
    every = dict.fromkeys(path for leaves in flat for path in leaves if path != "title")
    differing = [
        path for path in every if any(one.get(path) != flat[0].get(path) for one in flat[1:])
    ]
    return [[(name_key(path), _say(leaves, path)) for path in differing] for leaves in flat]


def compare_runs(
    runs: Sequence[Run], differences: Sequence[list[tuple[str, str]]]
) -> list[dict[str, Any]]:
    """Return a table of runs as plain data, one row per run.

    Parameters
    ----------
    runs : sequence of Run
        The runs to compare.
    differences : sequence of list
        Differences of their scenarios, from :func:`list_differences`.

    Returns
    -------
    list of dict
        With ``name``, ``colour``, ``settings`` and ``results``: pairs of label and text, of the
        settings that differ and of the runs' results.
    """
    measures = dict.fromkeys(label for run in runs for label in run.latest)
    return [
        {
            "name": run.name,
            "colour": run.colour,
            "settings": [list(pair) for pair in differing],
            "results": [[label, run.latest.get(label, "-")] for label in measures],
        }
        for run, differing in zip(runs, differences, strict=True)
    ]


def _leaves(tree: Mapping[str, Any], place: str = "") -> Any:
    """Yield the path and the value of each leaf of a tree."""
    for key, value in tree.items():
        path = f"{place}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _say(leaves: Mapping[str, Any], path: str) -> str:
    value = leaves.get(path)
    if value is None:
        return "-"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else number(value)
    if isinstance(value, (list, tuple)):
        return f"{len(value):,} values" if len(value) != 1 else "1 value"
    said = name_choice(value)
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"

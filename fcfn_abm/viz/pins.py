"""Runs that are kept beside the one that is shown, to be compared with it."""

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
"""Of the pinned runs, in turn; apart from those of the charts' own lines."""
MOST_PINS = len(COLOURS)
SHOWN = "now"
"""Name of the run that is shown."""

_MEASURES = (
    ("Rounds", "round"),
    ("Payment cap B", "budget"),
    ("Take part", "n_active"),
    ("Total epsilon S", "total_epsilon"),
    ("All nodes earn", "node_utility"),
    ("Server earns", "server_utility"),
)
_LONGEST = 24


@dataclass(frozen=True)
class Run:
    """A run that is compared: where it stands, and its curves."""

    name: str
    colour: str
    scenario: Scenario
    latest: Mapping[str, str]
    """The measures of its last round, as text."""
    tables: Mapping[str, Columns]
    """The columns behind its curves, by the names of the charts' own tables."""

    @property
    def ghost(self) -> Ghost:
        """What the charts draw of it."""
        return Ghost(self.name, self.colour, self.tables)


def take_run(name: str, colour: str, frame: Frame, *, copy: bool = True) -> Run:
    """Return a run as it stands.

    Parameters
    ----------
    name, colour : str
        What it is called and how it is drawn.
    frame : Frame
        Where it stands.
    copy : bool, default True
        Whether its curves stay as they are when the market is played on.
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
    """Return the settings in which scenarios differ: for each, pairs of a label and a text."""
    flat = [dict(_leaves(settings.tree_of(scenario))) for scenario in scenarios]
    every = dict.fromkeys(path for leaves in flat for path in leaves if path != "title")
    differing = [
        path for path in every if any(one.get(path) != flat[0].get(path) for one in flat[1:])
    ]
    return [[(name_key(path), _say(leaves, path)) for path in differing] for leaves in flat]


def compare_runs(
    runs: Sequence[Run], differences: Sequence[list[tuple[str, str]]]
) -> list[dict[str, Any]]:
    """Return a table of runs as plain data: one row a run.

    Parameters
    ----------
    runs : sequence of Run
        Those that are compared.
    differences : sequence of list
        Of their scenarios, from :func:`list_differences`.

    Returns
    -------
    list of dict
        With ``name``, ``colour``, ``settings`` and ``results``: pairs of a label and a text, of the
        settings that differ, and of what the runs came to.
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
    """Yield the path and the value of everything in a tree that is no table."""
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

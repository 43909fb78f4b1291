"""Create figures and ledger; complete figures are kept, also after an interrupt."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import fcfn_abm
from fcfn_abm import __version__
from fcfn_abm.errors import MissingExtraError, OutputError, UnknownNameError
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records import raise_as_output_error
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.scenario import to_toml
from fcfn_abm.training.distributed import BlockWorkers
from fcfn_zhou2023 import (
    clients,
    leader,
    learning,
    ledger,
    noise,
    parameters,
    participation,
    privacy,
    servers,
    training,
    utility,
)
from fcfn_zhou2023.base import (
    COLUMNS,
    Scenarios,
    Setting,
    Size,
    Study,
    figure_file,
    hash_code,
)
from fcfn_zhou2023.claims import Row, judge_claims

FIGURES: dict[str, Study] = {
    study.name: study
    for study in (
        *utility.STUDIES,
        *parameters.STUDIES,
        clients.STUDY,
        *servers.STUDIES,
        noise.STUDY,
        training.STUDY,
        *leader.STUDIES,
        participation.STUDY,
        learning.STUDY,
        privacy.STUDY,
    )
}
"""All figures by name: the paper's in its order, then the extras."""
_MARK = b"fcfn_zhou2023"


@dataclass(frozen=True)
class Replication:
    """Results of a replication."""

    rows: list[Row]
    """One row per judged claim."""
    values: pd.DataFrame
    """Tidy numbers of all figures."""
    out: Path
    """The folder with ledger, figures and numbers."""


def replicate(
    names: Iterable[str] = ("all",),
    size: Size = "fast",
    out: str | Path | None = None,
    *,
    workers: int | BlockWorkers = 1,
    progress: bool = False,
) -> Replication:
    """Reproduce figures of the paper, and judge its claims by their numbers.

    Parameters
    ----------
    names : iterable of str, default ("all",)
        Figures, ``"fig4"`` to ``"fig17"``, extras such as ``"extra-leader"``, or ``"all"``.
    size : {"fast", "full"}, default "fast"
        "fast" takes minutes on two cores; "full" has the paper's size.
    out : str or Path, optional
        Folder for the results; by default ``results/zhou2023-fast`` or ``-full``. Complete figures
        of the same scenarios, size and code are kept.
    workers : int or BlockWorkers, default 1
        Threads that train nets, or the workers of a cluster; the numbers are the same for any.
    progress : bool, default False
        Whether to show progress bars on stderr.

    Returns
    -------
    Replication
        The claims and their verdicts, for all figures of this size in the folder.

    Raises
    ------
    UnknownNameError
        If a figure is not known.
    MissingExtraError
        If a figure trains nets and torch is not installed.
    InvalidDataError
        If a data set of the full size is missing.
    OutputError
        If the folder contains other results, or cannot be written.
    """
    selected = figures(names)
    if any(study.heavy for study in selected) and find_spec("torch") is None:
        raise MissingExtraError(
            "figure 17 trains nets and requires torch, which is not installed: pip install "
            "'fcfn-abm[train]', or choose other figures, such as fig4 fig13."
        )
    out = Path(f"results/zhou2023-{size}" if out is None else out)
    setting = Setting(size=size, out=out, workers=workers, progress=progress)
    if (out / RUN_FILE).exists():
        raise OutputError(f"{out}: contains other results; choose another folder with --out.")
    with raise_as_output_error(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
        (out / "values").mkdir(exist_ok=True)
    with progress_bar(len(selected), "figures", "figure", shown=progress) as bar:
        for study in selected:
            bar.set_description(study.name, refresh=sys.stderr.isatty())
            scenarios = study.load(setting)
            mark = _mark_of(setting, scenarios)
            if _kept_mark(out, study) != mark:
                _make(study, scenarios, setting, mark)
                _conclude(setting)
            bar.update()
    return _conclude(setting)


def figures(names: Iterable[str]) -> list[Study]:
    """Return the named figures, in the order of the paper.

    Examples
    --------
    >>> [study.name for study in figures(["fig13", "fig04"])]
    ['fig4', 'fig13']
    """
    wanted = set()
    for name in names:
        plain = name.replace("fig0", "fig")
        if plain != "all" and plain not in FIGURES:
            raise UnknownNameError("figure", name, [*FIGURES, "all"])
        wanted |= set(FIGURES) if plain == "all" else {plain}
    return [study for name, study in FIGURES.items() if name in wanted]


def _mark_of(setting: Setting, scenarios: Scenarios) -> dict[str, str]:
    """Return a short description of what a figure's numbers depend on."""
    text = "".join(f"{name}\n{to_toml(scenario)}" for name, scenario in scenarios.items())
    return {**_common_mark(setting), "scenarios": hashlib.sha256(text.encode()).hexdigest()}


def _common_mark(setting: Setting) -> dict[str, str]:
    """Return the part of it that is the same for all figures."""
    return {"version": __version__, "size": setting.size, "code": _code()}


@cache
def _code() -> str:
    """Return a hash of the code that numbers and figures come from."""
    own, package = Path(__file__).parent, Path(fcfn_abm.__file__).parent
    return hash_code(own) + hash_code(package, "cli", "viz")


def _files(out: Path, study: Study) -> tuple[Path, list[Path]]:
    name = figure_file(study.name)
    return out / "values" / f"{name}.parquet", [
        out / "figures" / f"{name}.{kind}" for kind in ("png", "svg")
    ]


def _kept_mark(out: Path, study: Study) -> dict[str, str]:
    """Return the mark of a complete figure, or an empty one."""
    numbers, pictures = _files(out, study)
    if not all(path.is_file() for path in (numbers, *pictures)):
        return {}
    try:
        metadata = pq.read_table(numbers, page_checksum_verification=True).schema.metadata or {}
        return dict(json.loads(metadata.get(_MARK, b"{}")))
    except (pa.ArrowException, OSError, ValueError):
        return {}


def _make(study: Study, scenarios: Scenarios, setting: Setting, mark: dict[str, str]) -> None:
    """Make a figure; its numbers are written last, and mark it as complete."""
    numbers, pictures = _files(setting.out, study)
    values = study.compute(scenarios, setting).assign(figure=study.name)[COLUMNS]
    picture = study.draw(values)
    with raise_as_output_error(setting.out):
        numbers.unlink(missing_ok=True)
        for path in pictures:
            metadata = {"Software": "fcfn_abm"} if path.suffix == ".png" else {"Date": None}
            picture.savefig(path, metadata=metadata)
        stored = pa.Table.from_pandas(values, preserve_index=False)
        metadata = {**(stored.schema.metadata or {}), _MARK: json.dumps(mark).encode()}
        partial = numbers.with_suffix(".partial")
        stored = stored.replace_schema_metadata(metadata)
        pq.write_table(stored, partial, write_page_checksum=True)  # to detect corruption
        partial.replace(numbers)


def _conclude(setting: Setting) -> Replication:
    """Write numbers and ledger of all figures that are complete."""
    out, kept, common = setting.out, {}, _common_mark(setting)
    for name, study in FIGURES.items():
        if _kept_mark(out, study).items() >= common.items():
            kept[name] = pd.read_parquet(_files(out, study)[0])
    findings = [finding for name, values in kept.items() for finding in FIGURES[name].judge(values)]
    rows = judge_claims(findings)
    values = pd.concat(kept.values(), ignore_index=True) if kept else pd.DataFrame(columns=COLUMNS)
    studies = [FIGURES[name] for name in kept]
    with raise_as_output_error(out):
        values.to_parquet(out / "values.parquet", index=False)
        (out / "ledger.md").write_text(ledger.markdown(rows, studies, setting.size), "utf-8")
        (out / "ledger.html").write_text(ledger.page(rows, studies, setting), "utf-8")
    return Replication(rows, values, out)

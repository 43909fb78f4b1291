"""Reports of what lies on disk: runs, comparisons, calibrations and sweeps, as one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcfn_abm.errors import InvalidRecordError, OutputError, as_path, require_known
from fcfn_abm.process.folders import remove_abandoned
from fcfn_abm.records import raise_as_output_error, read_record, write_file
from fcfn_abm.records.folders import (
    RUN_KIND,
    SCENARIO_FILE,
    read_facts,
    resolve_output_file,
)
from fcfn_abm.records.integrity import (
    RUN_FILE,
    raise_as_record_error,
    require_unchanged,
    require_utf8,
)
from fcfn_abm.records.tables import read_table
from fcfn_abm.report.blocks import Page
from fcfn_abm.scenario import read_toml, tree_to_scenario

FORMS = ("html", "md")


def write_report(
    path: str | Path,
    out: str | Path | None = None,
    form: str = "html",
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run, a comparison, a calibration or a sweep that lies on disk.

    Parameters
    ----------
    path : str or Path
        Its folder.
    out : str or Path, optional
        File to write; without it ``report.html`` or ``report.md`` in that folder, which is
        written anew each time.
    form : {"html", "md"}
        One self-contained file with its figures in it; or Markdown, with the figures as SVG files
        in a folder beside it.
    overwrite : bool, default False
        Whether a file ``out`` is replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidRecordError
        If the folder is missing, or holds nothing that can be read.
    UnknownNameError
        If ``form`` is neither of the two.
    OutputError
        If ``out`` is there already, or cannot be written.

    Notes
    -----
    Reads what is on disk, and loads neither torch nor Mesa. Equal folders give equal reports.
    """
    from fcfn_abm.report.figures.files import svg_of  # loads matplotlib
    from fcfn_abm.report.render import render_html, render_markdown

    path = as_path("path", path, error=InvalidRecordError)
    require_known("form of a report", form, FORMS)
    if out is None:
        file, figures = path / f"report.{form}", path / "figures"
    else:
        file = resolve_output_file(as_path("out", out), overwrite=overwrite)
        figures = file.with_name(f"{file.stem}-figures")
    page = read_page(path)
    with raise_as_output_error(file), raise_as_record_error(path):  # figures are drawn here
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(file)
        if form == "html":
            text = render_html(page)
        else:
            require_utf8(file, OutputError)
            figures.mkdir(exist_ok=True)
            for picture in page.pictures():
                image = figures / f"{picture.name}.svg"
                remove_abandoned(image)
                write_file(image, svg_of(picture.figure).encode())
            text = render_markdown(
                page, lambda name: f"{figures.name}/{name}.svg".replace(" ", "%20")
            )
        write_file(file, text.encode())
    return file


def read_page(path: Path) -> Page:
    """Read a folder of results, and say what is in it.

    Parameters
    ----------
    path : Path
        Of a run, a comparison, a calibration or a sweep.
    """
    require_unchanged(path, [RUN_FILE, SCENARIO_FILE])
    run = read_facts(path)
    with raise_as_record_error(path):
        return _page(path, run)


def _page(path: Path, run: dict[str, Any]) -> Page:
    kind = run.get("kind", RUN_KIND)
    if kind == RUN_KIND:
        from fcfn_abm.report.run_page import run_page

        record = read_record(path)
        return run_page(record, _toml(path))
    if kind == "comparison":
        from fcfn_abm.report.comparison_page import comparison_page

        return comparison_page(_table(path, kind), run, _scenario(path), _toml(path))
    if kind == "benchmark":
        from fcfn_abm.report.bench_page import bench_page

        return bench_page(_table(path, "bench"), run, _scenario(path), _toml(path))
    if kind == "calibration":
        from fcfn_abm.report.calibration_page import calibration_page

        return calibration_page(_table(path, kind), run, _scenario(path), _toml(path))
    if kind == "sweep":
        from fcfn_abm.report.sweep_page import sweep_page
        from fcfn_abm.runs.sweep_folder import read_sweep

        sweep = read_sweep(path)
        is_complete = run["mode"] == "sobol" and sweep.counts()["done"] == run["n_runs"]
        indices = sweep.sensitivity() if is_complete else None
        return sweep_page(sweep.frame(), run, sweep.scenario, _toml(path), indices)
    raise InvalidRecordError(f"{path}: holds a {kind}, of which there is no report.")


def _table(path: Path, name: str) -> Any:
    file = f"{name}.parquet"
    require_unchanged(path, [file])
    return read_table(path / file)


def _scenario(path: Path) -> Any:
    return tree_to_scenario(read_toml(path / SCENARIO_FILE), str(path / SCENARIO_FILE))


def _toml(path: Path) -> str:
    return (path / SCENARIO_FILE).read_text(encoding="utf-8")

"""Reports of results on disk: runs, comparisons, calibrations, benchmarks and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcfn_abm.errors import InvalidRecordError, OutputError, as_path, require_known
from fcfn_abm.process.files import read_file
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
FIGURES = ("svg", "pdf", "png")
SEVERAL = "comparison"
"""File name of the report of several folders, without suffix."""


def write_report(
    path: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    form: str = "html",
    *,
    figures: str | None = None,
    interactive: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run, a comparison, a calibration or a sweep from disk.

    Parameters
    ----------
    path : str, Path or sequence of them
        Its folder; or the folders of several runs or of several sweeps, which are compared.
    out : str or Path, optional
        File to write. By default ``report.html`` or ``report.md`` in the folder, which is replaced;
        for several folders ``comparison.html`` or ``comparison.md`` in the working directory,
        which must not exist.
    form : {"html", "md"}
        A self-contained HTML file; or Markdown, with figures and their data as files in a folder
        next to it.
    figures : {"svg", "pdf", "png"}, optional
        Also write each figure in this format, for print, to a folder next to the report; PNG has
        300 dots per inch. By default Markdown has SVG, and HTML has no extra files.
    interactive : bool, default False
        Whether HTML has interactive curves, with a crosshair and zoom.
    overwrite : bool, default False
        Whether to replace an existing file ``out``.

    Returns
    -------
    Path
        Path of the report.

    Raises
    ------
    InvalidRecordError
        If a folder is missing, or its content cannot be read or compared.
    UnknownNameError
        If ``form`` or ``figures`` is not known.
    OutputError
        If ``out`` exists, or cannot be written.

    Notes
    -----
    Reads only from disk, and loads neither torch nor Mesa. Equal folders give equal reports.
    """
    from fcfn_abm.report.render import render_html, render_markdown  # loads matplotlib

    listed = list(path) if isinstance(path, (list, tuple)) else [path]
    paths = [as_path("path", each, error=InvalidRecordError) for each in listed]
    if not paths:
        raise InvalidRecordError("a report needs a folder of results.")
    require_known("form of a report", form, FORMS)
    if figures is not None:
        require_known("form of figures", figures, FIGURES)
    if out is None and len(paths) == 1:
        file, folder = paths[0] / f"report.{form}", paths[0] / "figures"
    else:
        out = f"{SEVERAL}.{form}" if out is None else out
        file = resolve_output_file(as_path("out", out), overwrite=overwrite)
        folder = file.with_name(f"{file.stem}-figures")
    page = read_page(paths[0]) if len(paths) == 1 else read_pages(paths)
    where = paths[0] if len(paths) == 1 else file
    with (
        raise_as_output_error(file),
        raise_as_record_error(where),
    ):  # figures are drawn while writing
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(file)
        suffix = figures or ("svg" if form == "md" else None)
        if suffix:
            _write_figures(page, folder, suffix)
        if form == "html":
            text = render_html(page, interactive=interactive)
        else:
            require_utf8(file, OutputError)
            _write_files(folder, {n: t.encode() for n, t in page.data_files().items()})
            place = folder.name.replace(" ", "%20")
            text = render_markdown(
                page, lambda name: f"{place}/{name}.{suffix}", lambda name: f"{place}/{name}"
            )
        write_file(file, text.encode())
    return file


def _write_figures(page: Page, folder: Path, suffix: str) -> None:
    from fcfn_abm.report.figures.files import encode_figure

    _write_files(
        folder,
        {
            f"{picture.name}.{suffix}": encode_figure(picture.figure, suffix)
            for picture in page.pictures()
        },
    )


def _write_files(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        remove_abandoned(folder / name)
        write_file(folder / name, content)


def read_pages(paths: Sequence[Path]) -> Page:
    """Read several folders of results for a comparison.

    Parameters
    ----------
    paths : sequence of Path
        Folders of several runs, or of several sweeps.

    Raises
    ------
    InvalidRecordError
        If their kinds differ, or cannot be compared.
    """
    from fcfn_abm.report.several_page import Source, runs_page, sweeps_page
    from fcfn_abm.runs.sweep_folder import read_sweep

    if len({path.resolve() for path in paths}) < len(paths):
        raise InvalidRecordError("a folder was given twice; each must be given once.")
    kinds, sources = [], []
    for path, name in zip(paths, _name_folders(paths), strict=True):
        require_unchanged(path, [RUN_FILE, SCENARIO_FILE])
        run = read_facts(path)
        kinds.append(run.get("kind", RUN_KIND))
        with raise_as_record_error(path):
            if kinds[-1] == "sweep":
                results: Any = read_sweep(path).frame()
            elif kinds[-1] == RUN_KIND:
                results = read_record(path)
            else:
                raise InvalidRecordError(
                    f"{path}: is a {kinds[-1]}; only runs or sweeps can be compared."
                )
            sources.append(Source(name, _toml(path), results, run))
    if len(set(kinds)) > 1:
        raise InvalidRecordError(
            f"{paths[kinds.index(RUN_KIND)]} is a run and {paths[kinds.index('sweep')]} a "
            "sweep; only runs or only sweeps can be compared."
        )
    with raise_as_record_error(paths[0]):
        return runs_page(sources) if kinds[0] == RUN_KIND else sweeps_page(sources)


def _name_folders(paths: Sequence[Path]) -> list[str]:
    """Return the shortest unique names of folders, from their last parts."""
    whole = [path.resolve() for path in paths]
    for n_parts in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-n_parts:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in whole]


def read_page(path: Path) -> Page:
    """Read a folder of results, and build its report.

    Parameters
    ----------
    path : Path
        Folder of a run, a comparison, a calibration, a benchmark or a sweep.
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
    raise InvalidRecordError(f"{path}: is a {kind}, for which there is no report.")


def _table(path: Path, name: str) -> Any:
    file = f"{name}.parquet"
    require_unchanged(path, [file])
    return read_table(path / file)


def _scenario(path: Path) -> Any:
    return tree_to_scenario(read_toml(path / SCENARIO_FILE), str(path / SCENARIO_FILE))


def _toml(path: Path) -> str:
    return read_file(path / SCENARIO_FILE).decode()

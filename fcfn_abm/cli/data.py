"""Data sets."""

from __future__ import annotations

from typing import Annotated

import typer

from fcfn_abm.cli.base import App, app
from fcfn_abm.cli.terminal import say

data = App("Say which data sets are on this machine, and get those that are not.")
app.add_typer(data, name="data")


@data.command("list", help="List the data sets, and where they lie.")
def list_data() -> None:
    from fcfn_abm.report.blocks import table
    from fcfn_abm.runs.data import list_data_sets
    from fcfn_abm.training.sources import data_folder

    say(f"Data sets in {data_folder()} (FCFN_DATA names another folder)")
    say(table(["", "train", "test", "classes", ""], list_data_sets()))


@data.command(
    "prepare", help="Download data sets that are missing, and check all images and checksums."
)
def prepare_data(
    names: Annotated[list[str], typer.Argument(help="Data sets, as listed.", show_default=False)],
) -> None:
    from fcfn_abm.runs.data import prepare_data_set

    for name in names:
        say(prepare_data_set(name, progress=True))

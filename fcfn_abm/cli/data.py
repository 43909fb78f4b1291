"""Data sets."""

from __future__ import annotations

from typing import Annotated

import typer

from fcfn_abm.cli.base import App, app
from fcfn_abm.cli.terminal import say

data = App("List data sets, and download missing ones.")
app.add_typer(data, name="data")


@data.command("list", help="List the data sets and their locations.")
def list_data() -> None:
    from fcfn_abm.report.blocks import table
    from fcfn_abm.runs.data import list_data_sets
    from fcfn_abm.training.sources import data_folder

    say(f"Data sets in {data_folder()} (set FCFN_DATA to use another folder)")
    say(table(["", "train", "test", "classes", ""], list_data_sets()))


@data.command("prepare", help="Download missing data sets, and check all images and checksums.")
def prepare_data(
    names: Annotated[list[str], typer.Argument(help="Names of data sets.", show_default=False)],
) -> None:
    from fcfn_abm.runs.data import prepare_data_set

    for name in names:
        say(prepare_data_set(name, progress=True))

"""The live window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import Imports, Overrides, Trust, app
from fcfn_abm.cli.terminal import print_message, say


@app.command(help="Show a live market in the browser, or replay one or two records.")
def view(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="A scenario file, the folder of a record, or two records to compare.",
            show_default=False,
            metavar="FILE|RECORD [RECORD]",
        ),
    ],
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8765,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; addresses other than loopback allow other machines."
        ),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name (and port) of a proxy in front of the window. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the window in a browser.")] = True,
) -> None:
    from fcfn_abm.viz.server import LOOPBACK, serve
    from fcfn_abm.viz.session import open_sources

    opened = open_sources(
        sources, tuple(overrides or ()), imports=tuple(imports or ()), trust=trust
    )
    if host not in LOOPBACK:
        print_message(
            f"{host} is not loopback: anyone who can reach this machine and knows the address "
            "below can use the window; traffic is not encrypted."
        )

    def print_address(address: str) -> None:
        say(f"{address}  (press Ctrl-C to stop)")

    serve(
        opened,
        host=host,
        port=port,
        browser=browser,
        allow_hosts=tuple(allow_host or ()),
        on_ready=print_address,
    )

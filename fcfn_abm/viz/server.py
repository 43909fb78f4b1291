"""Serve the window on this machine."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import warnings
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from time import sleep

from fcfn_abm.errors import (
    MissingExtraError,
    OutputError,
    abbreviate,
    escape_control_characters,
)
from fcfn_abm.viz.guard import WILDCARDS, Guard, bracket, list_hosts
from fcfn_abm.viz.session import OpenedSource

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ASSETS = Path(__file__).parent / "assets"
"""Folder of the charting library, which this server serves."""
MOST_BYTES = 1 << 20
"""Size of the largest message accepted from a browser; those of the page are far smaller."""

_LONGEST = 300  # longest line of the log, in characters
_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


def serve(
    opened: OpenedSource,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    browser: bool = True,
    allow_hosts: Sequence[str] = (),
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the window until interrupted, to clients with the token in the address.

    Parameters
    ----------
    opened : OpenedSource
        From :func:`fcfn_abm.viz.session.open_source`.
    host : str, default "127.0.0.1"
        Address to listen on; any address other than loopback gives other machines access.
    port : int, default 8765
        Port to listen on; 0 chooses a free one.
    browser : bool, default True
        Whether to open the window in a browser.
    allow_hosts : sequence of str, optional
        Host names of a proxy in front of the window, such as ``lab.example.org`` or
        ``lab.example.org:8443``.
    on_ready : callable, optional
        Called with the address once the window is ready.

    Raises
    ------
    MissingExtraError
        If the extra ``viz`` is not installed.
    OutputError
        If the address cannot be used, or an allowed host is not a host name.
    """
    _require_names(allow_hosts)
    listener = _listen(host, port)
    os.environ["SOLARA_TELEMETRY_MIXPANEL_ENABLE"] = "False"  # no telemetry
    try:
        import solara.server.app
        import solara.server.settings
        import solara.server.starlette
        import solara_assets  # noqa: F401 - without it, scripts are loaded from the internet
        import uvicorn
    except ImportError as error:
        listener.close()
        raise MissingExtraError(
            f"The window requires {str(error.name).split('.')[0]}: pip install 'fcfn-abm[viz]'."
        ) from None
    from fcfn_abm.viz import app

    app.source = opened
    warnings.filterwarnings("ignore", message="Cookies with samesite=none")  # it stays on loopback
    solara.server.settings.main.mode = "production"
    solara.server.settings.telemetry.mixpanel_enable = False
    solara.server.settings.theme.title = "fcfn"
    solara.server.settings.theme.show_banner = False
    solara.server.settings.kernel.cull_timeout = "2m"  # a closed tab stops playing
    solara.server.settings.assets.extra_locations = [str(ASSETS)]
    solara.server.app.apps["__default__"] = solara.server.app.AppScript("fcfn_abm.viz.app")
    bound, token = listener.getsockname()[1], secrets.token_urlsafe(32)
    named = _reachable_name(host)
    guard = Guard(
        solara.server.starlette.app,
        hosts=list_hosts(named, bound, allow_hosts),
        token=token,
        port=bound,
        assets=solara.server.settings.assets.proxy_cache_dir,
        list_sessions=lambda: list(solara.server.kernel_context.contexts),
        any_address=host in WILDCARDS,
    )
    _log_in_lines()
    config = uvicorn.Config(
        guard,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws_max_size=MOST_BYTES,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    address = f"http://{bracket(named)}:{bound}/?token={token}"

    def announce() -> None:
        while not server.started and not server.should_exit:
            sleep(0.05)
        if on_ready and server.started:
            on_ready(address)
        if browser and server.started:
            webbrowser.open(address)

    Thread(target=announce, daemon=True).start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the window was closed.") from None


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise OutputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"Cannot listen on {host}, port {port}: {reason}. Choose another port with --port."
        ) from None


def _require_names(hosts: Sequence[str]) -> None:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise OutputError(
                f"--allow-host {abbreviate(host)}: must be a host name such as lab.example.org, "
                "with the port if it is not the default one."
            )


def _reachable_name(host: str) -> str:
    """Return the host for URLs: browsers cannot open wildcard addresses."""
    return socket.gethostname() if host in WILDCARDS else host


def _log_in_lines() -> None:
    """Log the server's messages about broken connections in one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line("fcfn: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Line(logging.Formatter):
    """Formats a message in one line; tracebacks of our own errors follow it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the formatted line."""
        if record.name.startswith("fcfn_abm"):
            return super().format(record)
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error:
            text += f" ({type(error).__name__}: {error})"
        return f"fcfn: {escape_control_characters(' '.join(text.split()))[:_LONGEST]}"

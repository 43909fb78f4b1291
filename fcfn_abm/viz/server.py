"""Serve the window on this machine."""

from __future__ import annotations

import os
import socket
import warnings
import webbrowser
from collections.abc import Callable
from threading import Thread
from time import sleep

from fcfn_abm.errors import MissingExtraError, OutputError
from fcfn_abm.viz.session import OpenedSource

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    opened: OpenedSource,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    browser: bool = True,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the window until it is interrupted.

    Parameters
    ----------
    opened : OpenedSource
        From :func:`fcfn_abm.viz.session.open_source`.
    host : str, default "127.0.0.1"
        Address to listen on; any other than loopback lets other machines in.
    port : int, default 8765
        Port to listen on; 0 takes a free one.
    browser : bool, default True
        Whether to open the window in a browser.
    on_ready : callable, optional
        Called with the address once the window can be opened.

    Raises
    ------
    MissingExtraError
        If the extra ``viz`` is not installed.
    OutputError
        If nothing can listen there.
    """
    listener = _listen(host, port)
    os.environ["SOLARA_TELEMETRY_MIXPANEL_ENABLE"] = "False"  # nothing leaves this machine
    try:
        import solara.server.app
        import solara.server.settings
        import solara.server.starlette
        import solara_assets  # noqa: F401 - the scripts of the page, else loaded from the internet
        import uvicorn
    except ImportError as error:
        listener.close()
        raise MissingExtraError(
            f"The window needs {str(error.name).split('.')[0]}: pip install 'fcfn-abm[viz]'."
        ) from None
    from fcfn_abm.viz import app

    app.source = opened
    warnings.filterwarnings("ignore", message="Cookies with samesite=none")  # it stays on loopback
    solara.server.settings.main.mode = "production"
    solara.server.settings.telemetry.mixpanel_enable = False
    solara.server.settings.theme.title = "fcfn"
    solara.server.settings.theme.show_banner = False
    solara.server.settings.kernel.cull_timeout = "2m"  # a closed tab stops playing
    solara.server.app.apps["__default__"] = solara.server.app.AppScript("fcfn_abm.viz.app")
    config = uvicorn.Config(
        solara.server.starlette.app,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    address = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"

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
        raise KeyboardInterrupt("the window is closed.") from None


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise OutputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"Nothing can listen on {host}, port {port}: {reason}; choose another one with --port."
        ) from None


def _in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - no browser can open a wildcard address
        host = socket.gethostname()
    return f"[{host}]" if ":" in host else host

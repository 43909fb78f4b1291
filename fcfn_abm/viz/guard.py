"""Access control of the window: an ASGI application in front of the server.

A browser lets any page send requests to any address, including this machine. So every HTTP and
WebSocket request is checked before it reaches the window: it must name this server (against DNS
rebinding), come from a page of this server, and carry the token that was printed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Application = Callable[[Message, Receive, Send], Awaitable[None]]

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - only compared with
MOST_SESSIONS = 32
"""Most tabs open at a time; each has a market of its own."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        # the page's templates are compiled in the browser, and its first script is inline
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content security policy: everything comes from this server, and no other page may frame it."""

_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_FORWARDED = re.compile(rb"forwarded|x-forwarded-.*|(x-)?script-name")
_ASSETS = "/_solara/cdn/"
_KERNEL = re.compile("/jupyter/api/kernels/([^/]+)/")


class Guard:
    """Passes requests of the user's own browser on, and answers all others itself.

    Parameters
    ----------
    app : callable
        The ASGI application that serves the window.
    hosts : iterable of str
        Values of the header ``Host`` to allow, from :func:`list_hosts`.
    token : str
        Token required in the address, as ``?token=``, until a cookie holds it.
    port : int
        Port of the server. It is part of the cookie's name, since cookies of one host are sent to
        all of its ports.
    assets : Path
        Folder of the scripts and fonts that Solara would fetch from the internet if they are
        missing.
    list_sessions : callable
        Returns the identifiers of the open sessions.
    any_address : bool, default False
        Whether the address on which a request arrived is also an allowed host.
    """

    def __init__(
        self,
        app: Application,
        *,
        hosts: Iterable[str],
        token: str,
        port: int,
        assets: Path,
        list_sessions: Callable[[], Iterable[str]],
        any_address: bool = False,
    ) -> None:
        self._app, self._hosts = app, frozenset(hosts)
        self._token, self._cookie = token.encode(), f"fcfn-{port}={token}".encode()
        self._assets, self._list_sessions = assets, list_sessions
        self._any_address = any_address
        self._connected: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            await self._answer_request(scope, receive, _add_headers(send))
        elif scope["type"] == "websocket":
            await self._answer_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer_request(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if problem := self._find_problem(scope):
            await _reply(send, HTTPStatus.FORBIDDEN, problem)
        elif path == "/" and (tokens := _tokens(scope)):
            await self._let_in(scope, send, tokens)
        elif not self._has_cookie(scope):
            await _reply(
                send,
                HTTPStatus.FORBIDDEN,
                "Open the window with the address that fcfn view printed; it contains a token.",
            )
        elif path.startswith(_ASSETS) and not self._is_asset(path.removeprefix(_ASSETS)):
            await _reply(send, HTTPStatus.NOT_FOUND, "File not found.")
        elif path == "/" and len(self._sessions()) >= MOST_SESSIONS:
            await _reply(
                send,
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_SESSIONS} tabs already show this window, the maximum. Close one, wait two "
                "minutes, and reload.",
            )
        else:
            await self._app(_drop_forwarded(scope), receive, send)

    async def _answer_websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        kernel = _KERNEL.match(scope["path"])
        session = kernel[1] if kernel else ""
        open_ = self._sessions()
        if (
            self._find_problem(scope)
            or not self._has_cookie(scope)
            or not session
            or (session not in open_ and len(open_) >= MOST_SESSIONS)
        ):
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008})
            return
        self._connected[session] += 1
        try:
            await self._app(_drop_forwarded(scope), receive, send)
        finally:
            self._connected[session] -= 1

    def _find_problem(self, scope: Message) -> str:
        """Return why a request is not from a page of this server; empty if it is."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._is_allowed(hosts[0], scope):
            return "This host name is not allowed; use fcfn view --allow-host NAME to allow it."
        origins = _values(scope, b"origin")
        own = {f"{scheme}://{hosts[0]}" for scheme in ("http", "https")}
        if len(origins) > 1 or not own.issuperset(origins):
            return "This request comes from a page of another server."
        if scope["type"] == "websocket" and not origins:
            return "This request has no Origin header."
        foreign = {"cross-site", "same-site"}.intersection(_values(scope, b"sec-fetch-site"))
        if foreign and _values(scope, b"sec-fetch-mode") != ["navigate"]:
            return "This request comes from a page of another server."
        return ""

    def _is_allowed(self, host: str, scope: Message) -> bool:
        if host in self._hosts:
            return True
        if not (self._any_address and scope.get("server")):
            return False
        address, port = scope["server"]
        return host == f"{bracket(address)}:{port}"

    async def _let_in(self, scope: Message, send: Send, tokens: list[str]) -> None:
        """Move the token from the address into a cookie."""
        if len(tokens) != 1 or not compare_digest(tokens[0].encode(), self._token):
            await _reply(send, HTTPStatus.FORBIDDEN, "The token in this address is not valid.")
            return
        rest = [(key, value) for key, value in _query(scope) if key != "token"]
        # with "Strict", the redirect after a link on another page, such as a terminal in a browser,
        # would arrive without the cookie
        cookie = self._cookie + b"; Path=/; HttpOnly; SameSite=Lax"
        headers = [
            (b"location", ("/?" + urlencode(rest) if rest else "/").encode()),
            (b"set-cookie", cookie),
        ]
        await _reply(send, HTTPStatus.SEE_OTHER, "", headers)

    def _has_cookie(self, scope: Message) -> bool:
        sent = [part.strip() for part in ";".join(_values(scope, b"cookie")).split(";")]
        return any(compare_digest(part.encode(), self._cookie) for part in sent)

    def _is_asset(self, path: str) -> bool:
        parts = path.split("/")
        if "\\" in path or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
            return False
        try:
            return len(parts) > 1 and self._assets.joinpath(*parts).is_file()
        except OSError:  # a name that is too long
            return False

    def _sessions(self) -> set[str]:
        return {*self._list_sessions(), *(+self._connected)}


def list_hosts(host: str, port: int, others: Iterable[str] = ()) -> frozenset[str]:
    """Return the values of the header ``Host`` with which browsers may address this server.

    Parameters
    ----------
    host : str
        Address that the server listens on.
    port : int
        Its port.
    others : iterable of str
        Names of a proxy in front of the server, with the port if it is not the default one.

    Examples
    --------
    >>> sorted(list_hosts("::1", 8765, ["Lab.example.org"]))
    ['127.0.0.1:8765', '[::1]:8765', 'lab.example.org', 'localhost:8765']
    """
    names = {bracket(name).lower() for name in ("127.0.0.1", "localhost", "::1", host)}
    own = {f"{name}:{port}" for name in names}
    if port == 80:  # browsers omit the default port
        own |= names
    return frozenset(own | {other.lower() for other in others})


def bracket(host: str) -> str:
    """Return a host as in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _values(scope: Message, name: bytes) -> list[str]:
    """Return the values of a header; hosts in lower case for comparison."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return [v.lower() for v in values] if name in (b"host", b"origin") else values


def _query(scope: Message) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _tokens(scope: Message) -> list[str]:
    return [value for key, value in _query(scope) if key == "token"]


def _drop_forwarded(scope: Message) -> Message:
    """Drop forwarding headers: Solara would take the root of all pages from the first request."""
    kept = [(key, value) for key, value in scope["headers"] if not _FORWARDED.fullmatch(key)]
    return {**scope, "headers": kept}


def _add_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return send_with_headers


async def _reply(
    send: Send, status: HTTPStatus, text: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    body = f"{text}\n".encode()
    start = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": start})
    await send({"type": "http.response.body", "body": body})

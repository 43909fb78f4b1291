"""The door of the window: what reaches it, by ASGI messages, and by sockets on a real server."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fcfn_abm.errors import OutputError
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz import server
from fcfn_abm.viz.guard import MOST_SESSIONS, Guard, list_hosts
from fcfn_abm.viz.session import OpenedSource

TOKEN = "a-token"
HOST = ("host", "127.0.0.1:8765")
OWN = ("origin", "http://127.0.0.1:8765")
COOKIE = ("cookie", f"fcfn-8765={TOKEN}")
KERNEL = "/jupyter/api/kernels/one/channels"


def guard_of(tmp_path, sessions=(), *, any_address=False, others=()):
    async def window(scope, receive, send):  # noqa: ARG001
        headers = [(key.decode(), value.decode()) for key, value in scope["headers"]]
        reached.append((scope["type"], headers))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"the window"})
        else:
            await send({"type": "websocket.accept"})
            await waits.wait()

    reached, waits = [], asyncio.Event()
    guard = Guard(
        window,
        hosts=list_hosts("127.0.0.1", 8765, others),
        token=TOKEN,
        port=8765,
        assets=tmp_path,
        list_sessions=lambda: sessions,
        any_address=any_address,
    )
    return guard, reached


def scope_of(kind, path, query, headers):
    return {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(key.encode(), value.encode("latin-1")) for key, value in headers],
        "server": ("192.168.1.5", 8765),
    }


def ask(guard, *headers, path="/", query=""):
    """Return status, headers and text of the answer to a request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(guard(scope_of("http", path, query, headers), receive, send))
    start, body = sent
    given = {key.decode(): value.decode() for key, value in start["headers"]}
    return start["status"], given, body["body"].decode()


async def knock(guard, *headers, path=KERNEL):
    """Return the first message that answers a WebSocket, which stays open if it is accepted."""
    answer = asyncio.get_running_loop().create_future()

    async def send(message):
        if not answer.done():
            answer.set_result(message["type"])

    async def receive():
        return {"type": "websocket.connect"}

    task = asyncio.ensure_future(guard(scope_of("websocket", path, "", headers), receive, send))
    return await answer, task


def accepts(guard, *headers, path=KERNEL):
    async def try_once():
        answer, task = await knock(guard, *headers, path=path)
        task.cancel()
        return answer == "websocket.accept"

    return asyncio.run(try_once())


def test_with_its_cookie_a_browser_reaches_the_window(tmp_path):
    guard, reached = guard_of(tmp_path)
    assert ask(guard, HOST, COOKIE)[::2] == (200, "the window")
    assert accepts(guard, HOST, OWN, COOKIE)
    assert [kind for kind, _ in reached] == ["http", "websocket"]


NAMES = [
    "127.0.0.1:8765",
    "localhost:8765",
    "LocalHost:8765",
    "[::1]:8765",
    "lab.example.org",
]
FOREIGN_NAMES = [
    "",
    "evil.example",
    "evil.example:8765",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.0.0.1.evil.example:8765",
    "localhost:8765.evil.example",
    "127.0.0.1:8765, evil.example",
    "user@127.0.0.1:8765",
    "[::1]",
    "::1:8765",
    "0.0.0.0:8765",
    "192.168.1.5:8765",
    "lab.example.org:1",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_server_answers_to_its_own_names(tmp_path, name):
    guard, _ = guard_of(tmp_path, others=["Lab.Example.org"])
    assert ask(guard, ("host", name), COOKIE)[0] == 200
    assert ask(guard, ("host", name), ("origin", f"http://{name}"), COOKIE)[0] == 200
    assert accepts(guard, ("host", name), ("origin", f"https://{name}"), COOKIE)


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_name_that_somebody_else_gave_this_address_is_refused(tmp_path, name):
    guard, reached = guard_of(tmp_path, others=["lab.example.org"])
    host, origin = ("host", name), ("origin", f"http://{name}")
    assert ask(guard, host, origin, COOKIE)[0] == 403
    assert ask(guard, host, query=f"token={TOKEN}")[0] == 403
    assert not accepts(guard, host, origin, COOKIE)
    assert reached == []


@given(name=st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_other_name_is_refused(tmp_path_factory, name):
    own = {"127.0.0.1:8765", "localhost:8765", "[::1]:8765"}
    guard, reached = guard_of(tmp_path_factory.getbasetemp())
    if name.lower() not in own:
        assert ask(guard, ("host", name), COOKIE)[0] == 403
        assert reached == []


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, ("host", "evil.example")]])
def test_a_request_has_exactly_one_host(tmp_path, hosts):
    guard, _ = guard_of(tmp_path)
    assert ask(guard, *hosts, COOKIE)[0] == 403
    assert not accepts(guard, *hosts, OWN, COOKIE)


def test_on_a_wildcard_address_the_one_that_was_called_is_a_name_and_no_other(tmp_path):
    guard, _ = guard_of(tmp_path, any_address=True)
    assert ask(guard, ("host", "192.168.1.5:8765"), COOKIE)[0] == 200
    assert ask(guard, ("host", "192.168.1.6:8765"), COOKIE)[0] == 403
    assert ask(guard, ("host", "192.168.1.5"), COOKIE)[0] == 403


def test_the_usual_port_may_be_left_out():
    assert "127.0.0.1" in list_hosts("127.0.0.1", 80)
    assert "127.0.0.1" not in list_hosts("127.0.0.1", 81)


ORIGINS = [
    "null",
    "",
    "http://127.0.0.1",
    "http://127.0.0.1:3000",
    "http://localhost:8765",  # another origin than the host, though both are names of this server
    "http://evil.example",
    "ws://127.0.0.1:8765",
    "http://127.0.0.1:8765.evil.example",
    "http://127.0.0.1:8765/",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_another_origin_is_refused(tmp_path, origin):
    guard, reached = guard_of(tmp_path)
    assert ask(guard, HOST, ("origin", origin), COOKIE)[0] == 403
    assert not accepts(guard, HOST, ("origin", origin), COOKIE)
    assert not accepts(guard, HOST, OWN, ("origin", origin), COOKIE)
    assert reached == []


def test_a_websocket_says_from_which_page_it_comes(tmp_path):
    guard, reached = guard_of(tmp_path)
    assert not accepts(guard, HOST, COOKIE)
    assert reached == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", None])
def test_what_a_foreign_page_loads_is_refused_and_a_link_is_followed(tmp_path, site, mode):
    guard, _ = guard_of(tmp_path)
    fetch = [("sec-fetch-site", site), *([("sec-fetch-mode", mode)] if mode else [])]
    assert ask(guard, HOST, COOKIE, *fetch, path="/static/main.js")[0] == 403
    assert not accepts(guard, HOST, OWN, COOKIE, *fetch)
    link = ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")
    assert ask(guard, HOST, COOKIE, *link)[0] == 200


@pytest.mark.parametrize(
    "cookie",
    ["", "fcfn-8765=", "fcfn-8765=another", f"fcfn-8766={TOKEN}", f"fcfn-8765={TOKEN}é", TOKEN],
)
def test_without_the_token_nothing_is_served(tmp_path, cookie):
    guard, reached = guard_of(tmp_path)
    for path in ("/", "/readyz", "/resourcez", "/static/main.js", "/_solara/cdn/a/b.js"):
        status, _, text = ask(guard, HOST, ("cookie", cookie), path=path)
        assert status == 403
        assert "the address that fcfn view printed" in text
    assert not accepts(guard, HOST, OWN, ("cookie", cookie))
    assert reached == []


def test_the_cookie_is_found_among_others(tmp_path):
    guard, _ = guard_of(tmp_path)
    assert ask(guard, HOST, ("cookie", f"a=b; fcfn-8765={TOKEN}; c=d"))[0] == 200
    assert ask(guard, HOST, ("cookie", "a=b"), COOKIE)[0] == 200


def test_the_token_becomes_a_cookie_and_leaves_the_address(tmp_path):
    guard, reached = guard_of(tmp_path)
    status, headers, _ = ask(guard, HOST, query=f"game.alpha=2&token={TOKEN}&seed=%26")
    assert (status, headers["location"]) == (303, "/?game.alpha=2&seed=%26")
    assert headers["set-cookie"] == f"fcfn-8765={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
    assert headers["cache-control"] == "no-store"
    assert ask(guard, HOST, query=f"token={TOKEN}")[1]["location"] == "/"
    assert reached == []


@pytest.mark.parametrize("query", ["token=", "token=a", "token=%00", f"token={TOKEN}&token=a"])
def test_a_wrong_token_gives_no_cookie(tmp_path, query):
    guard, reached = guard_of(tmp_path)
    status, headers, _ = ask(guard, HOST, COOKIE, query=query)
    assert status == 403
    assert "set-cookie" not in headers
    assert reached == []


def test_the_token_is_taken_at_the_root_alone_so_that_it_leads_nowhere_else(tmp_path):
    guard, _ = guard_of(tmp_path)
    assert ask(guard, HOST, path="//evil.example", query=f"token={TOKEN}")[0] == 403


@pytest.mark.parametrize(
    ("headers", "query"), [((HOST, COOKIE), ""), ((), ""), ((HOST,), f"token={TOKEN}")]
)
def test_every_answer_has_the_headers(tmp_path, headers, query):
    guard, _ = guard_of(tmp_path)
    found = ask(guard, *headers, query=query)[1]
    assert found["x-content-type-options"] == "nosniff"
    assert found["referrer-policy"] == "no-referrer"
    assert found["cross-origin-resource-policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in found["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("http:" in sources or "*" in sources for sources in policy.values())


def test_an_asset_that_is_not_on_disk_is_not_asked_for_elsewhere(tmp_path):
    (tmp_path / "vue@2").mkdir()
    (tmp_path / "vue@2" / "main.js").write_text("")
    (tmp_path.parent / "outside.js").write_text("")
    guard, reached = guard_of(tmp_path)
    assert ask(guard, HOST, COOKIE, path="/_solara/cdn/vue@2/main.js")[0] == 200
    assert len(reached) == 1
    for name in (
        "vue@3/main.js",
        "vue@2",  # Solara would remove the folder, and fetch a file in its place
        "vue@2/",
        "vue@2//main.js",
        "vue@2/../vue@2/main.js",
        "../outside.js",
        "./vue@2/main.js",
        "vue@2\\main.js",
        "vue@2/main.js\0",
        f"vue@2/{'a' * 5000}",
        "",
    ):
        assert ask(guard, HOST, COOKIE, path=f"/_solara/cdn/{name}")[0] == 404, name
    assert len(reached) == 1


def test_what_proxies_say_does_not_reach_the_window(tmp_path):
    guard, reached = guard_of(tmp_path)
    names = ("x-forwarded-host", "x-forwarded-proto", "forwarded", "script-name", "x-script-name")
    ask(guard, HOST, COOKIE, *((name, "/evil") for name in names))
    assert reached == [("http", [HOST, COOKIE])]


def test_when_all_sessions_are_taken_a_sentence_says_so_and_open_tabs_may_reconnect(tmp_path):
    guard, _ = guard_of(tmp_path, sessions=["one", *map(str, range(MOST_SESSIONS - 1))])
    status, _, text = ask(guard, HOST, COOKIE)
    assert (status, text.split()[0]) == (503, str(MOST_SESSIONS))
    assert ask(guard, HOST, COOKIE, path="/static/main.js")[0] == 200
    assert accepts(guard, HOST, OWN, COOKIE)
    assert not accepts(guard, HOST, OWN, COOKIE, path=KERNEL.replace("one", "two"))


def test_many_that_connect_at_once_are_counted_too(tmp_path):
    guard, _ = guard_of(tmp_path)

    async def crowd():
        results = [
            await knock(guard, HOST, OWN, COOKIE, path=f"/jupyter/api/kernels/{k}/channels")
            for k in range(MOST_SESSIONS + 5)
        ]
        for _, task in results:
            task.cancel()
        await asyncio.gather(*(task for _, task in results), return_exceptions=True)
        again, task = await knock(guard, HOST, OWN, COOKIE)
        task.cancel()
        return [answer for answer, _ in results], again

    answers, again = asyncio.run(crowd())
    assert answers.count("websocket.accept") == MOST_SESSIONS
    assert again == "websocket.accept"  # they have left


def test_websockets_lead_to_sessions_alone(tmp_path):
    guard, reached = guard_of(tmp_path)
    assert not accepts(guard, HOST, OWN, COOKIE, path="/elsewhere")
    assert reached == []


@pytest.mark.parametrize("name", ["http://lab.example.org", "lab example", "", "a/b", "a:b", "*"])
def test_a_name_that_is_none_is_refused_in_a_sentence(name):
    with pytest.raises(OutputError, match=r"--allow-host.*must be a host name such as"):
        server.serve(OpenedSource("quick", Scenario()), port=0, allow_hosts=[name])


# A real server


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def address(tmp_path, log):
    """Address of a real window, whose log goes to a file; Ctrl-C closes it."""
    pytest.importorskip("solara")
    scenario = tmp_path / "market.toml"
    scenario.write_text("[population]\nn_nodes = 10\n")
    command = [sys.executable, "-m", "fcfn_abm", "view", str(scenario), "--no-browser"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        yield urlsplit(process.stdout.readline().split()[0])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        process.stdout.close()
    assert log.read_text().splitlines()[-1] == "fcfn: the window was closed."


def send_raw(address, *lines):
    """Send a request as it is, and return the whole answer."""
    with socket.create_connection((address.hostname, address.port), 20) as connection:
        connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())
        received = b""
        while part := connection.recv(65536):
            received += part
    return received.decode("utf-8", "replace")


def status_of(answer):
    return int(answer.split()[1])


def cookie_of(address):
    token = parse_qs(address.query)["token"][0]
    return f"fcfn-{address.port}={token}"


def open_socket(address, kernel, cookie=True, **headers):
    cookies = f"{cookie_of(address)}; solara-session-id={kernel}" if cookie else ""
    return connect(
        f"ws://{address.netloc}/jupyter/api/kernels/{kernel}/channels?session_id=page",
        additional_headers={"Cookie": cookies},
        open_timeout=60,
        **{"origin": f"http://{address.netloc}", **headers},
    )


def message_of(kind, **content):
    header = {"msg_type": kind, "msg_id": "1", "session": "s", "date": "2026-01-01T00:00:00Z"}
    parts = {"parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    return json.dumps({"header": header, **parts})


def is_answered(address):
    with open_socket(address, uuid4().hex) as tab:
        tab.send(message_of("kernel_info_request"))
        return "kernel_info_reply" in str([tab.recv(timeout=60) for _ in range(2)])


@pytest.mark.slow
def test_a_real_server_lets_in_who_has_the_token(address, log):
    host, cookie = f"host: {address.netloc}", f"cookie: {cookie_of(address)}"
    answer = send_raw(address, f"GET {address.path}?{address.query} HTTP/1.1", host)
    assert status_of(answer) == 303
    assert f"set-cookie: {cookie_of(address)}; Path=/; HttpOnly; SameSite=Lax" in answer
    assert "\r\nlocation: /\r\n" in answer
    page = send_raw(address, "GET / HTTP/1.1", host, cookie)
    assert status_of(page) == 200
    assert "frame-ancestors 'none'" in page
    assert status_of(send_raw(address, "GET / HTTP/1.1", host)) == 403
    assert status_of(send_raw(address, "GET / HTTP/1.1", "host: evil.example", cookie)) == 403
    evil = send_raw(address, "GET / HTTP/1.1", host, cookie, "origin: http://evil.example")
    assert status_of(evil) == 403
    assert status_of(send_raw(address, "GET / HTTP/1.0", cookie)) == 403
    missing = send_raw(address, "GET /_solara/cdn/a@1/b.js HTTP/1.1", host, cookie)
    assert status_of(missing) == 404
    assert is_answered(address)
    for refused in ({"origin": "http://evil.example"}, {"origin": None}, {"cookie": False}):
        with pytest.raises(InvalidStatus, match="403"), open_socket(address, "evil", **refused):
            pass
    assert log.read_text() == ""


BROKEN = [
    "no JSON",
    "[]",
    '{"header": 1}',
    message_of("no such\n\x1b[31mtype"),
    message_of("comm_open", comm_id=[], target_name="jupyter.widget", data=3),
    message_of("comm_msg"),
    b"\x00",
    b"\xff" * 40,
    struct.pack("!iI", 1, 8) + b"{",
    "x" * (server.MOST_BYTES + 1),
]


@pytest.mark.slow
def test_a_broken_message_is_at_most_one_line_in_the_log_and_the_server_stays(address, log):
    for message in BROKEN:
        before = len(log.read_text())
        with suppress(ConnectionClosed), open_socket(address, uuid4().hex) as broken:
            broken.send(message)
            broken.send(message_of("shutdown_request"))
            while True:
                broken.recv(timeout=60)
        assert is_answered(address)
        written = log.read_text()[before:]
        assert re.fullmatch(r"(fcfn: [\x20-\x7e]{1,300}\n)?", written), (message[:99], written)


@pytest.mark.slow
def test_a_real_server_opens_no_more_sessions_than_it_may(address):
    with ExitStack() as tabs:
        for k in range(MOST_SESSIONS):
            tabs.enter_context(open_socket(address, f"tab{k}"))
        with pytest.raises(InvalidStatus, match="403"), open_socket(address, "one-more"):
            pass
        host, cookie = f"host: {address.netloc}", f"cookie: {cookie_of(address)}"
        assert status_of(send_raw(address, "GET / HTTP/1.1", host, cookie)) == 503

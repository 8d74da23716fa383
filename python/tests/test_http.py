"""HTTP read as HTTP says, and faults that no repeat would heal: at once, and as our errors.

| finding | tests |
|---|---|
| 11 | test_plain_http_* |
| 12 | test_an_answer_*, test_a_body_*, test_retry_after_* |
| 13 | test_a_streamed_*, test_a_body_that_is_read_while_it_is_sent_* |
| 14 | test_how_vault_is_*, test_what_needs_no_token_* |
| 15 | test_*_at_once, test_connection_errors_* |
| 16 | test_a_login_that_no_vault_answered_* |
| 17 | test_a_client_certificate_*, test_hvac_takes_nothing_from_the_environment |
| 25 | test_an_ignored_variable_is_named_* |
| 29 | test_a_login_whose_answer_was_lost_* |
"""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
import io
import json
import shutil
import socket
import ssl
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import hvac
import pytest
import requests

from strongroom_dagster import (
    AppRoleAuth,
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    JwtAuth,
    KubernetesAuth,
    Settings,
    Source,
    StrongroomError,
    TLSVerificationError,
    TokenAuth,
    TokenFileAuth,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.transport import _Idle

from .harness import wait
from .harness.clock import FakeClock
from .harness.raw import Raw
from .harness.scripted import Answer, Request, Scripted
from .harness.shown import everything
from .harness.tls import Authority

SECRET = {"data": {"data": {"value": "v"}, "metadata": {"version": 1, "created_time": "t"}}}
LOOKUP = {"data": {"ttl": 0, "renewable": False}}
CANARY = "s3cr3t-canary"


def client_at(address: str, clock: FakeClock | None = None, **settings: Any) -> VaultSecrets:
    auth = settings.pop("auth", None) or TokenAuth(Source.of("t"))
    values = {"address": address, "deadline": 30.0, **settings}
    return VaultSecrets(Settings(**values), auth, clock=(clock or FakeClock()).clock)


def vault_like(request: bytes) -> bytes | None:
    return http(LOOKUP) if b"lookup-self" in request.split(b"\r\n")[0] else None


def http(body: Any, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", "Connection: close", *headers]
    if length:
        lines.append(f"Content-Length: {len(raw)}")
    return "\r\n".join([*lines, "", ""]).encode() + raw


def answering(answer: bytes) -> Any:
    return lambda request: vault_like(request) or answer


def answering_in_turn(answers: list[bytes]) -> Any:
    return lambda request: vault_like(request) or answers.pop(0)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


RAW = json.dumps(SECRET).encode()


# --- 12: HTTP as HTTP says -------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        http(SECRET),
        http(SECRET, length=False),
        http(SECRET, length=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
        http(chunked(RAW[:9], RAW[9:]), "Transfer-Encoding: chunked", length=False),
        http(chunked(*(RAW[i : i + 1] for i in range(len(RAW)))), "Transfer-Encoding: chunked", length=False),
        http(gzip.compress(RAW), "Content-Encoding: gzip"),
        http(gzip.compress(RAW), "Content-Encoding: gzip", length=False),
        http(chunked(*(gzip.compress(RAW)[i : i + 1] for i in range(len(gzip.compress(RAW))))),
             "Content-Encoding: gzip", "Transfer-Encoding: chunked", length=False),
    ],
    ids=["length", "close", "1.0", "chunked", "tiny chunks", "gzip", "gzip close",
         "gzip in tiny chunks"],
)  # fmt: skip
def test_an_answer_ends_where_http_says(answer: bytes) -> None:
    with Raw(answering(answer)) as server:
        client = client_at(server.address)
        assert client.get("x") == "v"
        assert client.stats.requests == 2


@pytest.mark.parametrize("headers", [(), ("Content-Length: 512",)])
def test_an_answer_to_head_has_no_body(headers: tuple[str, ...]) -> None:
    with Raw(http(b"", *headers, status="429 Too Many Requests", length=False)) as server:
        client = client_at(server.address)
        assert client.hvac.sys.read_health_status().status_code == 429
        assert client.stats.requests == 1


@pytest.mark.parametrize(
    "headers",
    [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 100\r\n", b"Transfer-Encoding: gzip\r\n",
     b"Content-Encoding: gzip\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("asked", ["HEAD", "204", "304"])
def test_what_has_no_body_has_none_whatever_its_headers_say(asked: str, headers: bytes) -> None:
    """RFC 9112, 6.1 and 6.3: they are those that the answer to a GET would have."""
    key = {"version": 1, "cache_ttl": 3600, "ttl": 3600, "key": "k", "etag": '"e"'}
    first = http({"data": key}).replace(b"Connection: close\r\n", b"")

    def answer(head: bytes) -> bytes:
        if b"If-None-Match" not in head and b"creds" in head:
            return first
        status = {"HEAD": b"200 OK", "204": b"204 No Content", "304": b"304 Not Modified"}[asked]
        return b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n"

    clock = FakeClock()
    with Conversation(answer) as server:
        client = client_at(server.address, clock, read_timeout=2.0, revalidate_deadline=3.0)
        for _ in range(2):
            if asked == "HEAD":
                assert client.hvac.sys.read_health_status().status_code == 200
            elif asked == "204":
                for stream in (False, True):
                    gone = client.hvac.adapter.delete("/v1/x", stream=stream)
                    assert (gone.status_code, gone.content) == (204, b"")
            else:
                assert client.api_key("x").key == "k"
                clock.advance(61.0)
        assert server.connections == 1


class Conversation(Raw):
    """Answers each request on one connection."""

    connections = 0

    def _serve(self, conn: socket.socket) -> None:
        self.connections += 1
        got = b""
        while data := conn.recv(65536):
            got += data
            while b"\r\n\r\n" in got:
                head, _, got = got.partition(b"\r\n\r\n")
                alive = (vault_like(head) or b"").replace(b"Connection: close\r\n", b"")
                conn.sendall(alive or self._answer(head))


@pytest.mark.parametrize("cut", [1, 20, len(RAW) - 1])
@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_is_cut_is_asked_for_again(cut: int, length: bool) -> None:
    whole = http(SECRET, length=length)
    answers = [whole[:-cut], whole[:-cut], whole]
    with Raw(lambda request: vault_like(request) or answers.pop(0)) as server:
        client = client_at(server.address)
        assert client.get("x") == "v"
        assert client.stats.requests == 4


def test_an_answer_that_is_cut_within_its_head_is_asked_for_again_wherever() -> None:
    whole = http(SECRET)
    for cut in range(whole.index(b"\r\n\r\n") + 4):
        with Raw(answering_in_turn([whole[:cut], whole])) as server:
            client = client_at(server.address)
            assert client.get("x") == "v", cut
            assert client.stats.requests == 3, cut


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 x\r\n\r\n",
    ],
    ids=["103", "102", "100", "several"],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_what_comes_before_the_answer_is_not_the_answer(interim: bytes, late: bool) -> None:
    """Else the answer stays on the connection, and the next request takes it for its own."""
    with KeepAlive(interim, late=late) as server:
        client = client_at(server.address)
        for name in ("a", "b", "c"):
            assert client.get(name) == name
        assert client.stats.requests == 4
        assert server.connections == 1


class KeepAlive(Raw):
    """Answers each request on one connection with the name that it asks for, after `interim`."""

    def __init__(self, interim: bytes, *, late: bool) -> None:
        self._interim, self._late = interim, late
        self.connections = 0
        super().__init__(b"")

    def _serve(self, conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        got = b""
        while data := conn.recv(65536):
            got += data
            while b"\r\n\r\n" in got:
                head, _, got = got.partition(b"\r\n\r\n")
                name = head.split()[1].decode().rpartition("/")[2]
                data_ = {"data": {"value": name}, "metadata": {"version": 1}}
                body = LOOKUP if name == "lookup-self" else {"data": data_}
                answer = http(body).replace(b"Connection: close\r\n", b"")
                if self._late:
                    conn.sendall(self._interim)
                    conn.sendall(answer)
                else:
                    conn.sendall(self._interim + answer)


def test_nineteen_answers_may_come_before_the_answer() -> None:
    with KeepAlive(b"HTTP/1.1 103\r\n\r\n" * 19, late=False) as server:
        assert client_at(server.address).get("a") == "a"


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 103 x\r\n\r\n" * 1000,
        b"HTTP/1.1 103\r\n\r\n" * 20 + http(SECRET), b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + http(SECRET),
    ],
    ids=["101", "103 for ever", "20 of 103", "20 of 100"],
)  # fmt: skip
def test_an_answer_before_which_too_much_comes_is_told_at_once(odd: bytes) -> None:
    with Raw(answering(odd)) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="does not speak HTTP"):
            client.get("x")
        assert client.stats.requests == 2


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 3", f"Content-Length: {len(RAW)}"),
        (f"Content-Length: {len(RAW)}, 3",), tuple(f"X-{n}: x" for n in range(200)),
        *((f"Content-Length: {odd}",) for odd in ("-5", "0x53", "+83", "", "8_3", "9" * 5000)),
        ("Content-Length : 83",), ("no header", "Content-Length: 83"),
        ("Transfer-Encoding: gzip, chunked",), ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked, chunked",), ("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_tell_nothing_are_told_at_once(
    headers: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with Raw(answering(http(SECRET, *headers, length=False))) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="headers that contradict each other"):
            client.get("x")
        assert client.stats.requests == 2
    assert not caplog.records  # urllib3 would warn of them, and quote them


@pytest.mark.parametrize(
    "headers", [(f"Content-Length: {len(RAW)}",) * 2, (f"Content-Length: {len(RAW)}, {len(RAW)}",)]
)
def test_the_same_length_twice_is_one(headers: tuple[str, ...]) -> None:
    """And the connection stays open after it: its end is not what ends the body."""
    answer = http(SECRET, *headers, length=False).replace(b"Connection: close\r\n", b"")
    with Held(lambda request: vault_like(request) or answer) as server:
        assert client_at(server.address).get("x") == "v"


class Held(Raw):
    """A server that does not hang up until its client does."""

    def _serve(self, conn: socket.socket) -> None:
        super()._serve(conn)
        while conn.recv(65536):
            pass


@pytest.mark.parametrize(
    "body", [b"zz\r\n" + RAW, b"-5\r\n" + RAW, b"%x\r\n%s0\r\n\r\n" % (len(RAW), RAW)],
    ids=["no number", "below 0", "no end of a chunk"],
)  # fmt: skip
def test_chunks_that_are_none_are_told_at_once(body: bytes) -> None:
    with Raw(answering(http(body, "Transfer-Encoding: chunked", length=False))) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="chunks that are none"):
            client.get("x")
        assert client.stats.requests == 2


@pytest.mark.parametrize("kind", ["application/json; charset=iso-8859-1", "text/plain", "x/y", ""])
def test_json_is_utf_8_whatever_the_header_says(kind: str) -> None:
    body = {"data": {"data": {"value": "\u00e9\u2713"}, "metadata": {"version": 1}}}
    answer = http(json.dumps(body, ensure_ascii=False).encode())
    answer = answer.replace(b"application/json", kind.encode())
    with Raw(answering(answer)) as server:
        assert client_at(server.address).get("x") == "\u00e9\u2713"


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=latin1", "text/plain"]
)
@pytest.mark.parametrize("length", [True, False])
def test_a_value_that_is_not_utf_8_is_not_guessed(kind: str, length: bool) -> None:
    body = b'{"data":{"data":{"value":"' + CANARY.encode() + b'\xe9"},"metadata":{"version":1}}}'
    answer = http(body, length=length).replace(b"application/json", kind.encode())
    with Raw(answering(answer)) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="not UTF-8") as caught:
            client.get("x")
        assert client.stats.requests == 2
    assert CANARY not in everything(caught.value)


def test_what_is_no_json_may_be_any_bytes() -> None:
    with Raw(answering(http(b"\x30\x82\xff").replace(b"application/json", b"x/pkix"))) as server:
        answer = client_at(server.address).hvac.adapter.get("/v1/pki/crl")
        assert answer.content == b"\x30\x82\xff"


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Too Large", "414 URI", "431 Headers"])
def test_a_refusal_that_is_not_vaults_asks_for_the_address(status: str) -> None:
    page = http(b"<html>denied</html>", status=status)
    with (
        Raw(answering(page)) as server,
        pytest.raises(InvalidResponseError, match="not by a vault"),
    ):
        client_at(server.address).get("x")


@pytest.mark.parametrize("status", [501, 505, 511])
@pytest.mark.parametrize("body", [b"<html>log in to the hotel</html>", {"errors": ["no"]}])
def test_what_would_be_answered_alike_again_is_not_repeated(status: int, body: Any) -> None:
    """It is an outage all the same: what is cached is served meanwhile."""
    said = Answer(200, SECRET)
    with Scripted(
        lambda r: Answer(200, LOOKUP) if r.path.endswith("lookup-self") else said
    ) as server:
        clock = FakeClock()
        client = client_at(server.address, clock, stale_if_error=86400.0)
        assert client.get("x") == "v"
        said, before = Answer(status, body), client.stats.requests
        clock.advance(3600)
        assert client.get("x") == "v"
        assert client.stats.requests == before + 1
        with pytest.raises(VaultUnavailableError, match="vault failed at"):
            client.get("y")
        assert client.stats.requests == before + 2
        assert clock.pauses == []


def test_a_request_that_did_not_come_whole_is_sent_again() -> None:
    """408: a proxy that hung up an idle connection; nothing was done, whatever the method."""
    late = Answer(408, b"")
    login = Answer(
        200, {"auth": {"client_token": "hvs.x", "lease_duration": 60, "renewable": True}}
    )
    answers = [late, login, late, Answer(200, SECRET)]
    with Scripted(lambda _: answers.pop(0)) as server:
        client = client_at(server.address, auth=AppRoleAuth("r", Source.of("s")))
        assert client.get("x") == "v"


def test_a_body_that_is_cut_before_a_length_that_is_given_twice_is_asked_for_again() -> None:
    short = http(RAW[:-5], f"Content-Length: {len(RAW)}, {len(RAW)}", length=False)
    with Raw(answering_in_turn([short, http(SECRET)])) as server:
        client = client_at(server.address)
        assert client.get("x") == "v"
        assert client.stats.requests == 3


@pytest.mark.parametrize("cut", range(3, 17))
def test_chunks_that_are_cut_are_asked_for_again(cut: int) -> None:
    """Within the last size, between chunks and within one; what may be missing is the last line."""
    whole = http(chunked(RAW[:9], RAW[9:]), "Transfer-Encoding: chunked", length=False)
    short = whole[:-cut]
    with Raw(answering_in_turn([short, whole])) as server:
        client = client_at(server.address)
        assert client.get("x") == "v"
        assert client.stats.requests == 3


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "404 Not Found"])
def test_json_that_is_nested_too_deeply_is_one_of_our_errors(status: str, length: bool) -> None:
    deep = b'{"data":' * 200_000
    with Raw(answering(http(deep, status=status, length=length))) as server:
        client = client_at(server.address)
        with pytest.raises(StrongroomError):
            client.get("x")


def test_an_answer_of_a_tls_port_to_plain_http_is_told_at_once() -> None:
    odd = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    with Raw(odd) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="is the address right"):
            client.get("x")
        assert client.stats.requests == 1


@pytest.mark.parametrize(
    "odd",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x46\r\n", b"220 mail ESMTP\r\n",
        # And without the end of a line, as TLS sends its alert.
        b"\x15\x03\x01\x00\x02\x02\x46", b"SSH-2.0", b"{}", b"\x00", b"HTP/1.1 200",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_http_is_told_at_once(odd: bytes) -> None:
    with Raw(odd) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="does not speak HTTP"):
            client.get("x")
        assert client.stats.requests == 1


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Date": "Sat, 28 Nov 2026 10:00:00 GMT", "Retry-After": "Sat, 28 Nov 2026 10:00:09 GMT"}, 9.0),
        ({"Date": "Sat, 28 Nov 2026 10:00:00 GMT", "Retry-After": "Sat, 28 Nov 2026 09:00:00 GMT"}, 0.05),
        ({"Retry-After": "soon"}, 0.05),
        ({"Retry-After": "-5"}, 0.05),
        ({"Retry-After": "inf"}, 0.05),
        ({"Retry-After": "7, 7"}, 0.05),
        ({"Retry-After": "Sat, 28 Nov 99999999999999999999999 10:00:09 GMT", "Date": "x"}, 0.05),
        ({"Retry-After": "Sat, 28 Nov 2026 10:00:09 +99999999"}, 0.05),
        ({}, 0.05),
    ],
)  # fmt: skip
def test_retry_after_in_seconds_or_as_a_date(headers: dict[str, str], pause: float) -> None:
    clock = FakeClock()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    answers = [http({"errors": ["wait"]}, *lines, status="503 Unavailable"), http(SECRET)]
    with Raw(lambda request: vault_like(request) or answers.pop(0)) as server:
        assert client_at(server.address, clock).get("x") == "v"
    assert clock.pauses == [pytest.approx(pause)]


def test_a_redirection_is_not_followed_and_its_body_is_bounded() -> None:
    moved = http(b"x" * 3000, "Location: http://[nonsense", status="307 Temporary Redirect")
    with Raw(answering(moved)) as server:
        client = client_at(server.address, max_response_bytes=2000)
        with pytest.raises(InvalidResponseError, match="longer than 2000 bytes"):
            client.get("x")
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match="status 307"):
            client.get("x")


# --- 13: streams -----------------------------------------------------------------------------


def test_a_streamed_answer_is_handed_out_as_it_comes() -> None:
    snapshot = bytes(range(256)) * 4096
    with Scripted(
        lambda r: (
            Answer(200, LOOKUP)
            if r.path.endswith("lookup-self")
            else Answer(200, snapshot, {"Content-Type": "application/gzip"})
        )
    ) as server:
        client = client_at(server.address, max_response_bytes=4096)
        answer = client.hvac.sys.take_raft_snapshot()
        assert b"".join(answer.iter_content(8192)) == snapshot
        with client.hvac.session.request("GET", f"{server.address}/x", stream=True) as answer:
            assert answer.raw.read(3) == snapshot[:3]


def test_a_streamed_answer_is_tried_again_as_any_other() -> None:
    answers = [Answer(503, {"errors": ["sealed"]}), Answer(200, b"snapshot")]
    with Scripted(
        lambda r: Answer(200, LOOKUP) if r.path.endswith("lookup-self") else answers.pop(0)
    ) as server:
        client = client_at(server.address)
        assert client.hvac.sys.take_raft_snapshot().content == b"snapshot"


def test_a_body_that_is_read_while_it_is_sent_is_sent_once() -> None:
    with Scripted(
        lambda r: (
            Answer(200, LOOKUP)
            if r.path.endswith("lookup-self")
            else Answer(503, {"errors": ["sealed"]})
        )
    ) as server:
        adapter = client_at(server.address).hvac.adapter
        answer = adapter.post("/v1/x", data=io.BytesIO(b"snapshot"), raise_exception=False)
        assert answer.status_code == 503
        sent = [r.body for r in server.requests if r.method == "POST"]
        assert sent == [b"snapshot"]
        adapter.put("/v1/x", data=b"snapshot", raise_exception=False)
        sent = [r.body for r in server.requests if r.method == "PUT"]
        assert len(sent) > 3
        assert set(sent) == {b"snapshot"}


# --- 14: without a token ---------------------------------------------------------------------


def test_how_vault_is_is_asked_once_and_without_a_login() -> None:
    def sealed(request: Request) -> Answer:
        status = 503 if "health" in request.path else 200
        return Answer(status, {"sealed": True, "initialized": True, "errors": []})

    with Scripted(sealed) as server:
        client = client_at(server.address)
        assert client.hvac.sys.is_sealed()
        assert client.hvac.sys.is_initialized()
        assert client.hvac.sys.read_health_status(method="GET").status_code == 503
        assert client.hvac.sys.read_health_status(method="GET", sealed_code=299).status_code == 503
        assert client.hvac.seal_status["sealed"]
        assert client.hvac.ha_status["sealed"]
        assert [r.headers.get("X-Vault-Token") for r in server.requests] == [None] * 6
    client = client_at(f"http://127.0.0.1:{wait.free_port()}")
    with pytest.raises(requests.ConnectionError):
        client.hvac.sys.is_sealed()
    assert client.stats.requests == 1


@pytest.mark.parametrize("after", ["9" * 400, "9" * 5000, "86400"])
def test_a_wait_beyond_the_deadline_is_not_begun(after: str) -> None:
    clock = FakeClock()
    busy = http({"errors": ["busy"]}, f"Retry-After: {after}", status="429 Too Many")
    with Raw(answering(busy)) as server, pytest.raises(VaultUnavailableError, match="busy"):
        client_at(server.address, clock).get("x")
    assert clock.pauses == []


def test_what_needs_no_token_is_sent_without_a_login() -> None:
    seen: list[str] = []

    def answer(request: Request) -> Answer:
        seen.append(request.path)
        assert "X-Vault-Token" not in request.headers
        return Answer(200, {"auth": {"client_token": "hvs.other"}, "data": {}, "sealed": False})

    with Scripted(answer) as server:
        h = client_at(server.address).hvac
        h.sys.submit_unseal_key("k")
        h.sys.read_root_generation_progress()
        h.sys.read_rekey_progress()
        h.auth.approle.login("r", "s", use_token=False)
        h.auth.userpass.login("u", "p", use_token=False)
        h.auth.jwt.jwt_login("r", "j", use_token=False, path="deep/mount")
        h.secrets.identity.read_well_known_configurations()
        h.secrets.identity.read_active_public_keys()
        h.adapter.get("/v1/identity/oidc/provider/default/.well-known/openid-configuration")
        h.adapter.post("/v1/sys/mfa/validate", json={})
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "auth/approle/role/login"), ("POST", "auth/approle/role/login"),
        ("GET", "auth/approle/role/login/role-id"), ("POST", "auth/approle/role/login/secret-id"),
        ("GET", "auth/userpass/users/login"), ("POST", "auth/userpass/users/login/password"),
        ("LIST", "auth/ldap/groups/login"), ("GET", "auth/github/map/teams/login"),
        ("DELETE", "auth/jwt/role/login"), ("GET", "auth/token/roles/login"), ("GET", "auth/x/login"),
    ],
)  # fmt: skip
def test_what_is_called_login_and_is_none_is_sent_with_the_token(method: str, path: str) -> None:
    with Scripted(lambda r: Answer(200, LOOKUP)) as server:
        client_at(server.address).hvac.adapter.request(method, f"/v1/{path}")
        assert server.requests[-1].headers["X-Vault-Token"] == "t"


@pytest.mark.parametrize(
    "path", ["auth/approle/login", "auth/userpass/login/a", "auth/ldap/login/a/b"]
)
def test_a_login_by_its_path_needs_no_login(path: str) -> None:
    with Scripted(lambda r: Answer(200, {"auth": {}})) as server:
        client_at(server.address).hvac.write(path, role_id="r")
        assert [(r.path, "X-Vault-Token" in r.headers) for r in server.requests] == [
            (f"/v1/{path}", False)
        ]


def test_a_wrapped_token_is_unwrapped_with_itself() -> None:
    token = {"auth": {"client_token": "hvs.new"}}
    with Scripted(lambda r: Answer(200, token if "unwrap" in r.path else LOOKUP)) as server:
        client = client_at(server.address).hvac
        client.auth_cubbyhole("hvs.wrapped")
        assert server.requests[-1].headers["X-Vault-Token"] == "hvs.wrapped"
        assert client.token == "hvs.new"


# --- 15: at once -----------------------------------------------------------------------------


def tls_server(directory: Path, newest: ssl.TLSVersion | None = None) -> tuple[ssl.SSLContext, str]:
    authority = Authority(directory)
    pair = authority.issue("server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(pair.certificate, pair.key)
    if newest is not None:
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    return context, str(authority.bundle)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_older_than_1_2_is_refused_at_once(tmp_path: Path) -> None:
    context, bundle = tls_server(tmp_path, ssl.TLSVersion.TLSv1_1)
    with Raw(answering(http(SECRET)), context) as server:
        client = client_at(server.address, ca_bundle=bundle)
        with pytest.raises(
            TLSVerificationError, match=r"no TLS with vault at https://127\.0\.0\.1"
        ):
            client.get("x")
        assert client.stats.requests == 1


def test_tls_1_2_is_the_floor_where_the_interpreter_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lenient:
        """The module of an interpreter that was built with OpenSSL's own defaults."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ssl, name)

        def SSLContext(self, protocol: int) -> ssl.SSLContext:  # noqa: N802
            made = ssl.SSLContext(protocol)
            made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            return made

    monkeypatch.setattr("strongroom_dagster.transport.ssl", Lenient())
    client = client_at("https://127.0.0.1:1")
    connections: Any = client._session.get_adapter("https://127.0.0.1:1")
    context = connections._pool_keywords["ssl_context"]
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_plain_http_behind_https_is_told_at_once() -> None:
    with Raw(answering(http(SECRET))) as server:
        client = client_at(server.address.replace("http:", "https:"))
        with pytest.raises(TLSVerificationError, match="no TLS with vault"):
            client.get("x")
        assert client.stats.requests == 1


def test_a_missing_client_certificate_is_told_at_once(tmp_path: Path) -> None:
    context, bundle = tls_server(tmp_path)
    context.load_verify_locations(bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    with Raw(answering(http(SECRET)), context) as server:
        client = client_at(server.address, ca_bundle=bundle)
        with pytest.raises(TLSVerificationError, match="certificate required"):
            client.get("x")
        assert client.stats.requests == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl names the folder's files")
def test_a_folder_of_authorities_is_as_good_as_a_file(tmp_path: Path) -> None:
    context, bundle = tls_server(tmp_path)
    folder = tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(bundle, folder / "ca.pem")
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    with Raw(answering(http(SECRET)), context) as server:
        assert client_at(server.address, ca_bundle=str(folder)).get("x") == "v"


def test_the_authorities_fault_is_told_before_the_certificates(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not PEM")
    both: dict[str, Any] = {"client_certificate": str(garbage), "client_key": str(garbage)}
    with pytest.raises(ConfigurationError, match=r"^ca_bundle: holds no certificates"):
        client_at("https://127.0.0.1:1", ca_bundle=str(garbage), **both)


def test_a_client_certificate_is_used_and_its_faults_are_ours(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server_pair = authority.issue("server", ["127.0.0.1"])
    mine = authority.issue("client", ["client.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pair.certificate, server_pair.key)
    context.load_verify_locations(authority.bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    own: dict[str, Any] = {"client_certificate": str(mine.certificate), "client_key": str(mine.key)}
    with Raw(answering(http(SECRET)), context) as server:
        client = client_at(server.address, ca_bundle=str(authority.bundle), **own)
        assert client.get("x") == "v"
        assert client.hvac.auth.token.lookup_self()["data"]
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff\xfe not PEM")
    for name in own:
        with pytest.raises(ConfigurationError, match="client_certificate, client_key"):
            client_at("https://127.0.0.1:1", **{**own, name: str(garbage)})
    with pytest.raises(ConfigurationError, match="client_certificate, client_key"):
        client_at("https://127.0.0.1:1", **{**own, "client_key": str(server_pair.key)})


def test_an_encrypted_client_key_asks_nobody_for_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = Authority(tmp_path).issue("client", ["client.test"])
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="unencrypted"):
        client_at(
            "https://127.0.0.1:1",
            client_certificate=str(pair.certificate),
            client_key=str(pair.key),
        )


@pytest.mark.parametrize("gone", ["ca_bundle", "client_certificate", "client_key"])
def test_a_certificate_file_that_is_gone_is_told_with_the_reason(tmp_path: Path, gone: str) -> None:
    authority = Authority(tmp_path)
    mine = authority.issue("client", ["client.test"])
    files = {
        "ca_bundle": authority.bundle, "client_certificate": mine.certificate, "client_key": mine.key
    }  # fmt: skip
    given: dict[str, Any] = {name: str(file) for name, file in files.items()}
    settings = Settings(address="https://127.0.0.1:1", **given)
    files[gone].unlink()  # the settings looked whether it was there
    said = "ca_bundle" if gone == "ca_bundle" else "client_certificate, client_key"
    with pytest.raises(ConfigurationError) as caught:
        VaultSecrets(settings, TokenAuth(Source.of("t")))
    assert str(caught.value) == f"{said}: cannot be read: no such file or directory"


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_a_garbage_ca_bundle_is_told_at_once(tmp_path: Path, content: bytes) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content)
    with pytest.raises(ConfigurationError, match="ca_bundle: holds no certificates"):
        client_at("https://127.0.0.1:1", ca_bundle=str(bundle))


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("nonsense", "must start with"), ("proxy:3128", "must start with"),
        ("ftp://proxy", "must start with"), ("http://", "has no host"),
        ("http://proxy:99999", "is not a URL"), ("http://pro xy", "is not a URL"),
        ("http://[::1", "is not a URL"), ("http://proxy\n", "is not a URL"),
    ],
)  # fmt: skip
def test_a_bad_proxy_is_told_at_once(proxy: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"proxy: {words}"):
        Settings(proxy=proxy)


@pytest.mark.skipif(importlib.util.find_spec("socks") is not None, reason="PySocks is installed")
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_missing_socks_is_told_at_once(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy: SOCKS needs the package PySocks"):
        Settings(proxy=f"{scheme}://proxy:1080")


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
def test_a_proxy_that_refuses_is_told_at_once(status: str) -> None:
    with Raw(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        client = client_at(
            "https://vault.test:8200", proxy=f"http://user:{CANARY}@127.0.0.1:{proxy.port}"
        )
        with pytest.raises(
            VaultUnavailableError, match=rf"proxy http://\*\*\*\*@127.*status {status[:3]}"
        ) as caught:
            client.get("x")
        assert client.stats.requests == 1
    assert CANARY not in everything(caught.value)


def test_a_proxy_that_is_away_is_named() -> None:
    client = client_at(
        "https://vault.test:8200", proxy=f"http://user:{CANARY}@127.0.0.1:{wait.free_port()}"
    )
    with pytest.raises(
        VaultUnavailableError, match=r"proxy http://\*\*\*\*@127.*refused"
    ) as caught:
        client.get("x")
    assert client.stats.requests > 1
    assert CANARY not in everything(caught.value)


def test_tls_through_a_proxy_is_as_without(tmp_path: Path) -> None:
    context, bundle = tls_server(tmp_path)
    with Raw(answering(http(SECRET)), context) as server, Tunnel() as proxy:
        client = client_at(server.address, ca_bundle=bundle, proxy=proxy.address)
        assert client.get("x") == "v"
        assert proxy.targets == [f"127.0.0.1:{server.port}"] * 2
        with pytest.raises(TLSVerificationError, match="did not verify"):
            client_at(server.address, proxy=proxy.address).get("x")
        with pytest.raises(TLSVerificationError, match=r"match|mismatch"):
            client_at(
                server.address, ca_bundle=bundle, proxy=proxy.address, tls_server_name="other.test"
            ).get("x")


def test_plain_http_goes_through_a_proxy_as_proxies_want_it(tmp_path: Path) -> None:
    with Raw(answering(http(SECRET))) as proxy:
        client = client_at("http://127.0.0.1:1", proxy=proxy.address)
        assert client.get("x") == "v"
        assert proxy.requests[-1].startswith(
            b"GET http://127.0.0.1:1/v1/secret/data/x HTTP/1.1\r\n"
        )


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_an_answer_by_way_of_a_proxy_is_read_as_any_other(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme == "socks5":
        socks_without_a_proxy(monkeypatch)
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
    with Raw(answering(early + http(SECRET))) as server:
        target = {"http": "http://127.0.0.1:1", "socks5": server.address}[scheme]
        client = client_at(target, proxy=server.address.replace("http", scheme))
        assert client.get("x") == "v"
    pool = client._connections.get_connection_with_tls_context(
        requests.Request("GET", target).prepare(), True, client._session.proxies
    )
    assert type(pool.pool) is _Idle, "a fork could leave a lock of it held"


def socks_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySocks as far as urllib3 uses it, which connects without asking the proxy."""
    module: Any = types.ModuleType("socks")
    module.PROXY_TYPE_SOCKS5 = module.PROXY_TYPE_SOCKS4 = 2
    module.ProxyError = type("ProxyError", (OSError,), {})

    def connect(address: tuple[str, int], timeout: float | None, **_: Any) -> socket.socket:
        return socket.create_connection(address, timeout)

    module.create_connection = connect
    module.__spec__ = importlib.machinery.ModuleSpec("socks", None)
    monkeypatch.setitem(sys.modules, "socks", module)
    monkeypatch.delitem(sys.modules, "urllib3.contrib.socks", raising=False)
    manager = importlib.import_module("urllib3.contrib.socks").SOCKSProxyManager
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", manager)
    monkeypatch.delitem(sys.modules, "urllib3.contrib.socks")


def test_a_unix_socket_has_no_proxy(tmp_path: Path) -> None:
    with Raw(answering(http(SECRET)), unix=tmp_path / "v.sock") as server:
        client = client_at(server.address, proxy="http://127.0.0.1:1")
        assert client.get("x") == "v"
        assert server.requests[-1].startswith(b"GET /v1/secret/data/x HTTP/1.1\r\n")


def test_a_proxy_may_be_of_the_systems_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proxy").mkdir()
    public, theirs = tls_server(tmp_path / "proxy")
    context, bundle = tls_server(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", theirs)  # what OpenSSL takes for the system's
    with Raw(answering(http(SECRET)), context) as server, Tunnel(public) as proxy:
        client = client_at(server.address, ca_bundle=bundle, proxy=proxy.address)
        assert client.get("x") == "v"


def test_tls_to_a_proxy_is_as_to_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate may be of our own authorities, and no variable has its keys written down."""
    context, bundle = tls_server(tmp_path)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with Raw(answering(http(SECRET)), context) as server, Tunnel(context) as proxy:
        client = client_at(server.address, ca_bundle=bundle, proxy=proxy.address)
        assert client.get("x") == "v"
        assert proxy.targets == [f"127.0.0.1:{server.port}"] * 2
        with pytest.raises(TLSVerificationError, match=r"the proxy https://127.* did not verify"):
            client_at(server.address, proxy=proxy.address).get("x")
        with pytest.raises(TLSVerificationError, match=r"the proxy https://local.*m[ai]s?match"):
            client_at(
                server.address,
                ca_bundle=bundle,
                proxy=proxy.address.replace("127.0.0.1", "localhost"),
            ).get("x")
    assert not (tmp_path / "keys").exists()


class Tunnel(Raw):
    """A proxy that connects."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.targets: list[str] = []
        super().__init__(b"", context)

    def _serve(self, conn: socket.socket) -> None:
        from threading import Thread

        got = b""
        while b"\r\n\r\n" not in got:
            got += conn.recv(65536)
        target = got.split()[1].decode()
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as server:
            conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = Thread(target=self._pump, args=(server, conn), daemon=True)
            back.start()
            self._pump(conn, server)
            back.join(10)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.parametrize(
    "token", [f"hvs.{CANARY}\nx", f"{CANARY} x", f"{CANARY}\x00", f"{CANARY}é", f"ł{CANARY}"]
)
def test_a_token_that_no_header_takes_is_refused_at_once(token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    for auth in (TokenAuth(Source.of(token)), TokenFileAuth(str(file))):
        client = client_at("http://127.0.0.1:1", auth=auth)
        with pytest.raises(AuthenticationError, match=r"token: (the value|file) ") as caught:
            client.get("x")
        assert client.stats.requests == 0
        assert CANARY not in everything(caught.value)


@pytest.mark.parametrize(
    "token", [f"{CANARY}\nx", f"{CANARY}\n", f"{CANARY}\r", f" {CANARY}", f"{CANARY}ł", 5]
)
def test_a_token_of_hvac_that_no_header_takes_is_refused_at_once(token: Any) -> None:
    client = client_at("http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="the token holds a line break") as refused:
        client.hvac.token = token
    assert CANARY not in everything(refused.value)


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b" \n"])
def test_a_token_file_may_begin_with_what_an_editor_puts_there(
    tmp_path: Path, prefix: bytes
) -> None:
    file = tmp_path / "token"
    file.write_bytes(prefix + b"hvs.good\r\n")
    with Scripted(lambda r: Answer(200, {**LOOKUP, **SECRET["data"], **LOOKUP})) as server:
        client = client_at(server.address, auth=TokenFileAuth(str(file)))
        assert client.hvac.token == "hvs.good"
        assert server.requests[0].headers["X-Vault-Token"] == "hvs.good"


@pytest.mark.parametrize("odd", ["3600", "1h", None, True, -1, [], {}, 1e300])
def test_an_odd_lifetime_of_a_login_is_an_error_at_once(odd: Any) -> None:
    auth = {"client_token": "hvs.x", "lease_duration": odd, "renewable": True}
    with Scripted(lambda _: Answer(200, {"auth": auth})) as server:
        client = client_at(server.address, auth=AppRoleAuth("r", Source.of("s")))
        with pytest.raises(InvalidResponseError, match="no lease_duration that is a number"):
            client.get("x")
        assert client.stats.requests == 1


def test_connection_errors_stay_what_they_were_for_hvac() -> None:
    client = client_at(f"http://127.0.0.1:{wait.free_port()}", deadline=1.0)
    client.hvac.token = "explicit"
    with pytest.raises(requests.ConnectionError, match="gave no answer") as caught:
        client.hvac.secrets.kv.v2.read_secret_version("x", raise_on_deleted_version=True)
    assert isinstance(caught.value, StrongroomError)
    assert caught.value.request is None
    with Raw(answering(http(SECRET))) as server:
        client = client_at(server.address.replace("http:", "https:"))
        with pytest.raises(requests.exceptions.SSLError):
            client.hvac.sys.is_sealed()


# --- 16, 29: logins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>welcome</html>", {"Content-Type": "text/html"}),
        Answer(200, b"{}"), Answer(200, b"[]"), Answer(200, {"auth": None}), Answer(200, {"auth": {}}),
        Answer(204), Answer(301, b"", {"Location": "https://vault.test/login?x=1"}),
        Answer(307, b"", {"Location": "https://vault.test/v1/auth"}), Answer(308, b""),
        Answer(400, b"<html>bad request</html>"), Answer(403, b"<html>denied</html>"),
        Answer(404, {"errors": ["no handler for route"]}), Answer(404, b"<html></html>"),
        Answer(405, {"errors": ["unsupported operation"]}), Answer(410, b""), Answer(418, b""),
        *(Answer(status, body) for status in (400, 401, 403) for body in (
            {"message": "Forbidden"}, {"errors": "denied"}, {"errors": [{"code": 1}]}, {"errors": None},
        )),
    ],
    ids=lambda answer: f"{answer.status}",
)  # fmt: skip
@pytest.mark.parametrize(
    "method", [AppRoleAuth("r", Source.of("s-canary")), TokenAuth(Source.of("t-canary"))]
)
def test_a_login_that_no_vault_answered_asks_for_the_address(answer: Answer, method: Any) -> None:
    with Scripted(lambda _: answer) as server:
        client = client_at(server.address, auth=method)
        with pytest.raises(InvalidResponseError, match="address") as caught:
            client.get("x")
        assert client.stats.requests == 1
    text = everything(caught.value)
    assert "credential is wrong" not in text
    assert "canary" not in text
    if answer.status in (301, 307):
        assert "sends on to https://vault.test" in text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
@pytest.mark.parametrize(
    "body",
    [{"message": "Forbidden"}, {"error": "x"}, {"errors": "denied"}, {"errors": [{"code": 1}]},
     {"errors": None}, [], "denied"],
    ids=json.dumps,
)  # fmt: skip
def test_a_refusal_in_json_that_is_not_vaults_asks_for_the_address(status: int, body: Any) -> None:
    """And is no reason to log in again: a firewall of web applications says it to anybody."""
    with Scripted(
        lambda r: Answer(200, LOOKUP) if r.path.endswith("lookup-self") else Answer(status, body)
    ) as server:
        client = client_at(server.address)
        with pytest.raises(InvalidResponseError, match=r"not by a vault.*address"):
            client.get("x")
        assert client.stats.requests == 2
        answer = client.hvac.adapter.get("/v1/secret/data/x", raise_exception=False)
        assert (answer.status_code, client.stats.requests) == (status, 3)
        if body == {"message": "Forbidden"} and status == 403:
            with pytest.raises(hvac.exceptions.Forbidden):
                client.hvac.read("secret/data/x")
        assert client.stats.logins == 1


@pytest.mark.parametrize("status", [400, 403])
def test_a_login_that_vault_refused_is_a_matter_of_the_credential(status: int) -> None:
    refusal = Answer(status, {"errors": ['invalid role or secret ID for "role-canary"']})
    with Scripted(lambda _: refusal) as server:
        client = client_at(server.address, auth=AppRoleAuth("role-canary", Source.of("s")))
        with pytest.raises(AuthenticationError, match="invalid role or secret ID") as caught:
            client.get("x")
    assert "give a new one" in caught.value.hint
    assert "canary" not in everything(caught.value)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
)
def test_a_login_whose_answer_was_lost_is_not_sent_again(answer: bytes) -> None:
    with Raw(answer) as server:
        client = client_at(server.address, auth=AppRoleAuth("r", Source.of("s")))
        with pytest.raises(
            VaultUnavailableError, match="not sent again, since it may have been done"
        ):
            client.get("x")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [("500 Internal", {"errors": ["gateway"]}), ("502 Bad Gateway", {"errors": ["gateway"]}),
     ("504 Gateway Timeout", {"errors": ["gateway"]}), ("503 Service Unavailable", {"message": "x"}),
     ("503 Service Unavailable", b"upstream connect error or disconnect/reset before headers"),
     ("503 Service Unavailable", b"<html>backend fetch failed</html>"), ("503 x", {"errors": "lost"})],
)  # fmt: skip
@pytest.mark.parametrize("how", ["AppRole", "JWT", "Kubernetes", "hvac", "a write"])
def test_a_login_that_a_gateway_lost_is_not_sent_again(
    status: str, body: Any, how: str, tmp_path: Path
) -> None:
    (tmp_path / "jwt").write_text("j")
    auth: Any = AppRoleAuth("r", Source.of("s"))
    if how == "JWT":
        auth = JwtAuth("r", Source.of("j"))
    elif how == "Kubernetes":
        auth = KubernetesAuth("r", str(tmp_path / "jwt"))
    with Raw(http(body, status=status)) as server:
        client = client_at(server.address, auth=auth)
        if how == "hvac":
            with pytest.raises(hvac.exceptions.VaultError):
                client.hvac.auth.approle.login("r", "s")
        elif how == "a write":
            client.hvac.token = "t"
            with pytest.raises(hvac.exceptions.VaultError):
                client.hvac.write_data("x", data={"a": "b"})
        else:
            with pytest.raises(VaultUnavailableError, match="vault failed at the login"):
                client.get("x")
        assert len(server.requests) == 1


def test_a_login_that_was_never_sent_or_refused_undone_is_sent_again() -> None:
    port = wait.free_port()
    clock = FakeClock()
    client = client_at(f"http://127.0.0.1:{port}", clock, auth=AppRoleAuth("r", Source.of("s")))
    with pytest.raises(VaultUnavailableError, match=r"after \d\d attempts: connection refused"):
        client.get("x")
    login = {"auth": {"client_token": "hvs.x", "lease_duration": 60, "renewable": True}}
    answers = [Answer(503, {"errors": ["sealed"]}), Answer(200, login)]
    with Scripted(lambda r: answers.pop(0) if "login" in r.path else Answer(200, SECRET)) as server:
        client = client_at(server.address, auth=AppRoleAuth("r", Source.of("s")))
        assert client.get("x") == "v"


# --- 11, 17, 25: where to, and what the environment says ---------------------------------------


@pytest.mark.parametrize(
    "address",
    ["http://vault.example.org", "http://10.0.0.1:8200", "HTTP://vault", "http://localhost.example.org",
     "http://127.0.0.1.example.org", "http://0.0.0.0:8200", "http://[fe80::1]:8200", "http://2130706433"],
)  # fmt: skip
def test_plain_http_to_another_host_is_refused_unless_insisted_on(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"in clear.*allow_plain_http"):
        Settings(address=address)
    with pytest.raises(ConfigurationError, match="in clear"):
        Settings.from_env({"VAULT_ADDR": address})
    assert Settings(address=address, allow_plain_http=True).address == address
    environ = {"VAULT_ADDR": address, "STRONGROOM_ALLOW_PLAIN_HTTP": "true"}
    assert Settings.from_env(environ).allow_plain_http


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8200", "http://127.1.2.3", "http://localhost:8200", "http://[::1]:8200",
     "http://vault.localhost", "unix:///run/vault.sock", "https://vault.example.org"],
)  # fmt: skip
def test_plain_http_to_this_machine_is_fine(address: str) -> None:
    assert Settings(address=address).address == address
    if address.startswith("http:"):
        with pytest.raises(ConfigurationError, match="in clear"):
            Settings(address=address, proxy="http://proxy.example.org:3128")


def test_hvac_takes_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import hvac.v1

    for name in ("VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_CACERT", "VAULT_CAPATH"):
        monkeypatch.setattr(hvac.v1, name, "/nowhere/file.pem")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / ".vault-token").write_text("from-home")
    for name, value in {
        "NETRC": str(netrc), "HOME": str(tmp_path), "VAULT_TOKEN": "from-the-environment",
        "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_NAMESPACE": "other", "VAULT_SKIP_VERIFY": "true",
        "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/nowhere",
        "NO_PROXY": "", "no_proxy": "", "SSLKEYLOGFILE": str(tmp_path / "keys"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Scripted(
        lambda r: Answer(200, LOOKUP if r.path.endswith("lookup-self") else SECRET)
    ) as server:
        client = client_at(server.address)
        assert client.get("x") == "v"
        assert client.hvac.secrets.kv.v2.read_secret_version("x", raise_on_deleted_version=True)
        assert len(server.requests) == 3
        for request in server.requests:
            assert request.headers["X-Vault-Token"] == "t"
            assert not {"Authorization", "X-Vault-Namespace"} & set(request.headers)
    client_at("https://127.0.0.1:1")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("REQUESTS_CA_BUNDLE", "/nowhere-canary"), ("CURL_CA_BUNDLE", "/nowhere-canary"),
     ("HTTPS_PROXY", "http://u:canary@[bad"), ("https_proxy", "socks5://canary:1"),
     ("ALL_PROXY", "canary://x"), ("NETRC", "/nowhere-canary")],
)  # fmt: skip
def test_what_the_environment_does_to_the_request_to_github_is_our_error(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    asked = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"https://127.0.0.1:{wait.free_port()}/x?y=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
    }
    client = client_at("http://127.0.0.1:1", auth=JwtAuth("r", environ=asked))
    with pytest.raises(VaultUnavailableError, match="REQUESTS_CA_BUNDLE") as caught:
        client.get("x")
    assert "canary" not in everything(caught.value)


def test_an_ignored_variable_is_named_where_it_may_be_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{CANARY}@proxy")
    with pytest.raises(VaultUnavailableError) as away:
        client_at(f"https://127.0.0.1:{wait.free_port()}").get("x")
    assert "HTTPS_PROXY is not read here: set proxy or VAULT_HTTP_PROXY" in away.value.hint
    assert CANARY not in everything(away.value)
    context, bundle = tls_server(tmp_path)
    with Raw(answering(http(SECRET)), context) as server:
        names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "VAULT_SKIP_VERIFY")
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name in names:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(name, bundle)
                with pytest.raises(TLSVerificationError) as caught:
                    client_at(server.address).get("x")
                hint = f"{name} is not read here: set ca_bundle or VAULT_CACERT"
                assert hint in caught.value.hint
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", bundle)  # OpenSSL's own, for the default authorities
            assert client_at(server.address).get("x") == "v"

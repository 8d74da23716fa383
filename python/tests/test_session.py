"""The session under hvac: its bounds, its connections, the certificate of one request."""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import ssl
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import requests

from strongroom_dagster import (
    ClosedError,
    ConfigurationError,
    InvalidResponseError,
    Settings,
    TLSVerificationError,
    VaultUnavailableError,
)
from strongroom_dagster.clock import Clock, system_clock
from strongroom_dagster.session import (
    CertificateFileError,
    RetryingSession,
    _retry_after,
    is_whole,
    own_certificate,
)
from strongroom_dagster.transport import Connections, _HTTPPool

from .harness.clock import FakeClock
from .harness.raw import Raw
from .harness.scripted import Answer, Request, Scripted
from .harness.tls import Authority, Pair


def session_at(address: str, clock: Clock | None = None, **settings: Any) -> RetryingSession:
    made = Settings(address=address, deadline=20.0, **settings)
    return RetryingSession(made, clock or system_clock(), Connections(made))


class Guests(Raw):
    """A TLS server that keeps the name on each visitor's certificate, None for one without."""

    def __init__(self, pair: Pair, authorities: Path) -> None:
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_OPTIONAL
        super().__init__(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", context)

    def _serve(self, conn: Any) -> None:
        names = dict(conn.getpeercert() or {}).get("subjectAltName", ((None, None),))
        self.names.append(names[0][1])
        super()._serve(conn)


def test_a_body_may_be_as_long_as_is_allowed() -> None:
    with (
        Scripted(lambda r: Answer(200, b"x" * int(r.path[1:]))) as server,
        session_at(server.address, max_response_bytes=70_000) as session,
    ):
        assert len(session.get(f"{server.address}/70000").content) == 70_000
        with pytest.raises(InvalidResponseError, match="longer than 70000 bytes"):
            session.get(f"{server.address}/70001")


def test_no_more_connections_are_kept_than_was_asked_for() -> None:
    pool = _HTTPPool("127.0.0.1", maxsize=1)
    connections = [pool._get_conn(), pool._get_conn()]
    for connection in connections:
        pool._put_conn(connection)
    assert pool.pool is not None
    assert pool.pool.qsize() == 1
    assert pool._get_conn() is connections[0]


def test_after_a_fork_more_requests_than_connections_are_kept_do_not_wait() -> None:
    connections = Connections(Settings(address="http://127.0.0.1:1", pool_size=1))
    request = requests.Request("GET", "http://127.0.0.1:1").prepare()
    connections.reset_after_fork()
    assert not connections.get_connection_with_tls_context(request, True).block


def test_a_socket_that_is_not_there_is_told_and_a_write_is_sent_again(tmp_path: Path) -> None:
    session = session_at(f"unix://{tmp_path}/none.sock", FakeClock().clock)
    with pytest.raises(VaultUnavailableError, match="no such file or directory") as caught:
        session.request("POST", "http://vault.unix/v1/x", json={})
    assert "it was not sent again" not in str(caught.value)
    assert session.requests_sent > 2


def test_one_connection_serves_one_request_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Scripted(lambda _: Answer(200, {})) as server, session_at(server.address) as session:
        monkeypatch.delattr("strongroom_dagster.session.Connections")  # no other ones are made
        adapter: Any = session.get_adapter(server.address)
        for _ in range(3):
            assert session.get(server.address).json() == {}
        pools = adapter.poolmanager.pools
        assert sum(pools[key].num_connections for key in pools.keys()) == 1  # noqa: SIM118
        assert session.requests_sent == 3
        session.reset_after_fork()
        assert session.requests_sent == 0


class Kept(Raw):
    """Behind a unix socket; answers each request of a connection, and tells when one has ended."""

    def __init__(self, path: Path) -> None:
        self.connections, self.hung_up = 0, threading.Event()
        super().__init__(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", unix=path)

    def _serve(self, conn: Any) -> None:
        self.connections += 1
        while conn.recv(65536):
            conn.sendall(self._answer(b""))
        self.hung_up.set()


def test_behind_a_unix_socket_closing_hangs_up_and_the_next_request_connects(
    tmp_path: Path,
) -> None:
    with Kept(tmp_path / "v.sock") as server, session_at(server.address) as session:
        for _ in range(2):
            assert session.get("http://vault.unix/v1/x").json() == {}
        assert (server.connections, server.hung_up.is_set()) == (1, False)
        session.close()
        assert server.hung_up.wait(10)
        assert session.get("http://vault.unix/v1/x").json() == {}
        assert server.connections == 2


def test_after_a_fork_the_connections_are_the_childs_own() -> None:
    with Scripted(lambda _: Answer(200, {})) as server, session_at(server.address) as session:
        session.get(server.address)
        adapter: Any = session.get_adapter(server.address)
        adapter.proxy_manager_for("http://127.0.0.1:1")
        pools = adapter.poolmanager

        def child() -> None:
            os._exit(7 if adapter.poolmanager is pools or adapter.proxy_manager else 0)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert adapter.poolmanager is pools
        assert adapter.proxy_manager


@pytest.mark.parametrize(
    ("given", "left", "expected"),
    [
        ({}, 100.0, (3.0, 8.0)), ({}, 2.0, (2.0, 2.0)), ({}, 5.0, (3.0, 5.0)),
        ({"read_timeout": 60.0}, 100.0, (3.0, 60.0)), ({"read_timeout": 60.0}, 20.0, (3.0, 20.0)),
        ({}, -1.0, (0.001, 0.001)), ({"read_timeout": 1e9}, 1e9, (3.0, 1e6)),
    ],
)  # fmt: skip
def test_an_attempt_takes_no_longer_than_is_left(
    given: dict[str, Any], left: float, expected: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[tuple[float, float]] = []
    real = requests.Session.request

    def request(self: Any, *arguments: Any, timeout: Any, **keywords: Any) -> Any:
        seen.append(timeout)
        return real(self, *arguments, **keywords)

    with (
        Scripted(lambda _: Answer(200, {})) as server,
        session_at(server.address, connect_timeout=3.0, read_timeout=8.0) as session,
    ):
        monkeypatch.setattr(requests.Session, "request", request)
        until = system_clock().now() + left
        with contextlib.suppress(VaultUnavailableError):  # of what had no time left
            session.request("GET", server.address, until=until, **given)
    assert seen[0] == pytest.approx(expected, abs=0.5)


def test_the_certificate_of_one_request_is_used_for_it_alone(tmp_path: Path) -> None:
    (tmp_path / "odd.pem").write_text("no certificate")
    missing, odd = str(tmp_path / "none.pem"), str(tmp_path / "odd.pem")
    address = "https://127.0.0.1:1"
    with session_at(address) as session:
        own = session.get_adapter(address)
        for cert in (missing, (missing, missing), odd, (odd, odd)):
            with pytest.raises(CertificateFileError) as caught:
                session.get(address, cert=cert)
            assert isinstance(caught.value, OSError)
            assert caught.value.__context__ is None
        for verify in (missing, odd):
            with pytest.raises(CertificateFileError):
                session.get(address, verify=verify)
        assert session.requests_sent == 0
        assert session.get_adapter(address) is own


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_one_request_may_show_another_certificate(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("own", ["own.test"]), authority.issue("other", ["other.test"])
    both = tmp_path / "both.pem"
    both.write_bytes(other.certificate.read_bytes() + other.key.read_bytes())
    one, pair = str(both), (str(other.certificate), str(other.key))
    given: tuple[Any, ...] = (pair, one, (one,), (one, None), (one, ""))
    with Guests(authority.issue("server", ["127.0.0.1"]), authority.bundle) as server:
        bundle, address = str(authority.bundle), server.address
        mine: dict[str, Any] = {
            "client_certificate": str(own.certificate), "client_key": str(own.key),
        }  # fmt: skip
        for settings, name in (({}, None), (mine, "own.test")):
            with session_at(address, ca_bundle=bundle, **settings) as session:
                assert session.get(address).content == b"{}"
                for cert in given:
                    assert session.get(address, cert=cert).content == b"{}"
                    assert session.get(address, cert=None).content == b"{}"
                assert server.names == [name, *["other.test", name] * 5]
                server.names.clear()


def test_one_request_may_trust_another_authority(tmp_path: Path) -> None:
    authorities = []
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        authorities.append(Authority(tmp_path / name))
    ours, theirs = authorities
    own = ours.issue("own", ["own.test"])
    with Guests(theirs.issue("server", ["127.0.0.1"]), ours.bundle) as server:
        session = session_at(
            server.address, ca_bundle=str(ours.bundle), client_certificate=str(own.certificate),
            client_key=str(own.key),
        )  # fmt: skip
        with session:
            for verify in (None, True, False, str(ours.bundle)):
                with pytest.raises(TLSVerificationError):
                    session.get(server.address, verify=verify)
            assert session.get(server.address, verify=str(theirs.bundle)).content == b"{}"
            assert server.names == ["own.test"]  # and shows the certificate that it always shows
            with pytest.raises(TLSVerificationError):
                session.get(server.address)


def test_the_connections_of_one_request_end_with_it(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = authority.issue("own", ["own.test"]), authority.issue("other", ["other.test"])
    with (
        Guests(authority.issue("server", ["127.0.0.1"]), authority.bundle) as server,
        session_at(
            server.address, ca_bundle=str(authority.bundle),
            client_certificate=str(own.certificate), client_key=str(own.key),
        ) as session,
    ):  # fmt: skip
        made: list[Connections] = []
        closed: list[Connections] = []

        class Watched(Connections):
            def __init__(self, settings: Settings) -> None:
                made.append(self)
                super().__init__(settings)

            def close(self) -> None:
                closed.append(self)
                super().close()

        monkeypatch.setattr("strongroom_dagster.session.Connections", Watched)
        # What is the session's own already needs no others.
        for cert in (None, (str(own.certificate), str(own.key))):
            session.get(server.address, cert=cert, verify=str(authority.bundle))
        assert made == []
        session.get(server.address, cert=(str(other.certificate), str(other.key)))
        with pytest.raises(ConfigurationError):
            session.get("https://[nonsense", cert=(str(other.certificate), str(other.key)))
        assert len(made) == 2
        assert closed == made


def test_a_request_that_interrupts_another_shows_its_own_certificate(
    authority: Authority,
) -> None:
    """As in the handler of a signal, which runs in the thread that it interrupts."""
    other = authority.issue("other", ["other.test"])
    with (
        Guests(authority.issue("server", ["127.0.0.1"]), authority.bundle) as server,
        session_at(server.address, ca_bundle=str(authority.bundle)) as session,
        session._over((str(other.certificate), str(other.key)), None),
    ):
        others = session.get_adapter(server.address)
        session.get(server.address)
        assert server.names == [None]
        assert session.get_adapter(server.address) is others


def test_no_attempt_begins_at_the_deadline() -> None:
    clock = FakeClock()
    busy = Answer(503, {"errors": ["sealed"]}, {"Retry-After": "10"})
    with Scripted(lambda _: busy) as server, session_at(server.address, clock.clock) as session:
        assert session.get(server.address).status_code == 503
        assert clock.pauses == [10.0]
        assert len(server.requests) == 2


@pytest.mark.parametrize(("seconds", "whole"), [(20.0, True), (20.1, False)])
def test_a_body_has_until_the_deadline(seconds: float, whole: bool) -> None:
    clock = FakeClock()

    def slow(_: Request) -> Answer:
        clock.advance(seconds)
        return Answer(200, {"late": True})

    with Scripted(slow) as server, session_at(server.address, clock.clock) as session:
        if whole:
            assert session.get(server.address).json() == {"late": True}
        else:
            with pytest.raises(VaultUnavailableError, match="timeout"):
                session.get(server.address)


@pytest.mark.parametrize("stream", [False, True])
def test_the_last_answer_counts_where_the_deadline_cuts_the_next_attempt_off(stream: bool) -> None:
    clock = FakeClock()

    def first_an_error(_: Request) -> Answer:
        if len(server.requests) > 1:
            clock.advance(30.0)
            return Answer(200, {"late": True})
        return Answer(500, {"errors": ["no such issuer"]})

    with Scripted(first_an_error) as server, session_at(server.address, clock.clock) as session:
        if stream:  # whose first answer was not read, and is given up
            assert session.get(server.address, stream=True).status_code == 200
        else:
            answer = session.get(server.address)
            assert (answer.status_code, answer.json()) == (500, {"errors": ["no such issuer"]})
        assert len(server.requests) == 2


def seen_by(session: RetryingSession) -> list[requests.Response]:
    """Every answer that the session gets from now on."""
    found: list[requests.Response] = []
    session.hooks["response"].append(lambda response, **_: found.append(response))
    return found


def test_an_answer_that_is_tried_again_is_hung_up() -> None:
    answers = [Answer(503, b"x" * 300_000), Answer(200, b"snapshot")]
    with Scripted(lambda _: answers.pop(0)) as server, session_at(server.address) as session:
        seen = seen_by(session)
        assert session.get(server.address, stream=True).content == b"snapshot"
        assert [response.raw.closed for response in seen] == [True, True]


def test_an_answer_that_is_too_long_is_hung_up() -> None:
    with (
        Scripted(lambda _: Answer(200, b"x" * 300_000)) as server,
        session_at(server.address, max_response_bytes=1000) as session,
    ):
        seen = seen_by(session)
        with pytest.raises(InvalidResponseError):
            session.get(server.address)
        assert seen[0].raw.closed


def test_a_body_that_was_read_is_there_as_often_as_one_asks() -> None:
    with Scripted(lambda _: Answer(200, b"body")) as server, session_at(server.address) as session:
        answer = session.get(server.address)
        for _ in range(2):
            assert list(answer.iter_content(2)) == [b"bo", b"dy"]
            assert (answer.content, answer.text) == (b"body", "body")


def test_what_the_parent_reads_is_not_closed_by_the_childs_collection() -> None:
    with (
        Scripted(lambda _: Answer(200, b"x" * 300_000)) as server,
        session_at(server.address) as session,
    ):
        answer = session.get(server.address, stream=True)
        parents = weakref.ref(answer.raw)
        session.reset_after_fork()
        gc.collect()
        assert parents() is not None
        assert not parents().closed  # type: ignore[union-attr]
        with pytest.raises(ClosedError, match="belongs to the process that asked for it"):
            _ = answer.content


def test_hvac_is_told_the_authorities_of_the_settings(authority: Authority) -> None:
    with session_at("https://127.0.0.1:1", ca_bundle=str(authority.bundle)) as session:
        assert session.verify == str(authority.bundle)


def test_what_hvac_asks_the_session_for_is_what_the_settings_say() -> None:
    with session_at("https://127.0.0.1:1") as session:
        assert (session.verify, session.cert, session.trust_env) == (True, None, False)
        assert session.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "rest",
    [
        b"204 No Content\r\n\r\n",
        b"304 Not Modified\r\n\r\n",
        b"200 OK\r\nContent-Length: 1\r\n\r\n{",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
    ],
    ids=["204", "304", "length", "chunked"],
)
def test_an_answer_whose_end_http_tells_is_whole_though_it_is_no_json(rest: bytes) -> None:
    answer = b"HTTP/1.1 " + rest.replace(b"\r\n", b"\r\nContent-Type: application/json\r\n", 1)
    with Raw(answer) as server, session_at(server.address) as session:
        found = session.request("GET", server.address, once=True)
    assert found.content == (b"{" if found.status_code == 200 else b"")


def test_hvac_is_shown_the_certificate_of_the_settings(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("client", ["client.test"])
    own = str(pair.certificate), str(pair.key)
    with session_at("https://127.0.0.1:1", client_certificate=own[0], client_key=own[1]) as session:
        assert session.cert == own


def test_after_the_end_nothing_is_sent() -> None:
    with Scripted(lambda _: Answer(200, {})) as server:
        session = session_at(server.address)
        adapter: Any = session.get_adapter(server.address)
        assert session.get(server.address).json() == {}
        session.shut()
        assert len(adapter.poolmanager.pools.keys()) == 0  # no connection is left open
        with pytest.raises(ClosedError):
            session.get(server.address)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("keywords", "whole"),
    [
        ({}, True), ({"data": b"x"}, True), ({"data": {"a": "b"}}, True), ({"json": {}}, True),
        ({"data": iter([b"x"])}, False), ({"files": {"f": b"x"}}, False),
        ({"files": {"f": b"x"}, "data": b"x"}, False), ({"files": {}}, True),
    ],
)  # fmt: skip
def test_what_can_be_sent_again(keywords: dict[str, Any], whole: bool) -> None:
    assert is_whole(keywords) is whole


@pytest.mark.parametrize("status", [500, 503])
def test_a_body_that_is_gone_is_not_sent_again_whatever_the_method(status: int) -> None:
    with Scripted(lambda _: Answer(status)) as server:
        for body in (io.BytesIO(b"all"), b"all"):
            server.requests.clear()
            with session_at(server.address, FakeClock().clock) as session:
                answer = session.request("PUT", server.address, data=body, idempotent=True)
            assert answer.status_code == status
            assert {request.body for request in server.requests} == {b"all"}
            assert (len(server.requests) == 1) is not isinstance(body, bytes)


def test_half_a_certificate_is_none() -> None:
    def own(certificate: str | None, key: str | None) -> Any:
        settings = Settings(address="https://vault")
        object.__setattr__(settings, "client_certificate", certificate)
        object.__setattr__(settings, "client_key", key)
        return own_certificate(settings)

    assert own("c.pem", "k.pem") == ("c.pem", "k.pem")
    assert own("c.pem", None) is None
    assert own(None, "k.pem") is None


def test_digits_of_other_scripts_are_no_seconds() -> None:
    response = requests.Response()
    for text, seconds in {
        "7": 7.0,
        " 7 ": 7.0,
        "\u0667": 0.0,
        "²": 0.0,
        "7.5": 0.0,
        "-7": 0.0,
    }.items():
        response.headers["Retry-After"] = text
        assert _retry_after(response) == seconds, text

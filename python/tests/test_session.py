"""The session under hvac: its bounds, its connections, the certificate of one request."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import requests

from strongroom_dagster import InvalidResponseError, Settings, VaultUnavailableError
from strongroom_dagster.clock import system_clock
from strongroom_dagster.session import CertificateFileError, RetryingSession
from strongroom_dagster.transport import Connections

from .harness.raw import Raw
from .harness.scripted import Answer, Scripted
from .harness.tls import Authority


def session_at(address: str, **settings: Any) -> RetryingSession:
    made = Settings(address=address, deadline=20.0, **settings)
    return RetryingSession(made, system_clock(), Connections(made))


def test_a_body_may_be_as_long_as_is_allowed() -> None:
    with (
        Scripted(lambda r: Answer(200, b"x" * int(r.path[1:]))) as server,
        session_at(server.address, max_response_bytes=70_000) as session,
    ):
        assert len(session.get(f"{server.address}/70000").content) == 70_000
        with pytest.raises(InvalidResponseError, match="longer than 70000 bytes"):
            session.get(f"{server.address}/70001")


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


@pytest.mark.parametrize(
    ("given", "left", "expected"),
    [
        ({}, 100.0, (3.0, 8.0)), ({}, 2.0, (2.0, 2.0)), ({}, 5.0, (3.0, 5.0)),
        ({"read_timeout": 60.0}, 100.0, (3.0, 60.0)), ({"read_timeout": 60.0}, 20.0, (3.0, 20.0)),
        ({}, -1.0, (0.001, 0.001)), ({"read_timeout": 1e9}, 1e9, (3.0, 1e6)),
    ],
)  # fmt: skip
def test_an_attempt_takes_no_longer_than_is_left(
    given: dict[str, float], left: float, expected: tuple[float, float],
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
            session.request("GET", server.address, until=until, **given)  # type: ignore[arg-type]
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

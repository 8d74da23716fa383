"""The life of a token, on a set clock and without a server: what `auth.TokenManager` does with what
Vault answers. With a real one: `test_auth`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from strongroom_dagster import (
    AuthenticationError,
    ClosedError,
    InvalidResponseError,
    Settings,
    VaultUnavailableError,
)
from strongroom_dagster.auth import Token, TokenManager, _Bound, _sent, _sent_on
from strongroom_dagster.masked import Sensitive
from strongroom_dagster.methods import Caller

from .harness.clock import FakeClock

DEAD = ["permission denied", "invalid token"]


class Said:
    """An answer that is not the JSON of a success."""

    def __init__(self, status: int, *errors: str, location: str = "") -> None:
        self.status_code = status
        self.headers = {"Location": location} if location else {}
        self._body = {"errors": list(errors)} if errors else {}

    def json(self) -> Any:
        return self._body


class World:
    """A manager, what it sent, and what it gets: an answer, an error or a function, by path."""

    owns_token = True

    def __init__(self, **auth: Any) -> None:
        self.clock = FakeClock()
        self.auth: dict[str, Any] = {"lease_duration": 900, "renewable": True, **auth}
        self.sent: list[tuple[str, str | None]] = []
        self.keywords: dict[str, Any] = {}
        self.says: dict[str, Any] = {}
        self.during: Callable[[], object] = lambda: None
        self.made = 0
        self.until = 0.0
        self.same = False
        self.tokens = TokenManager(self, Settings(deadline=60.0), self.clock.clock, self._send)

    def login(self, caller: Caller) -> dict[str, Any]:
        self.made += 1
        assert isinstance(caller, _Bound)
        self.until = caller._until
        name = f"hvs.{1 if self.same else self.made}"
        during, self.during = self.during, lambda: None
        during()
        return {"client_token": name, **self.auth}

    def describe(self) -> str:
        return "a test"

    def _send(self, method: str, path: str, *, vault_token: str | None, **keywords: Any) -> Any:
        self.sent.append((path.removeprefix("/v1/auth/token/"), vault_token))
        self.keywords = {"method": method, **keywords}
        found = self.says.get(self.sent[-1][0], Said(204))
        if isinstance(found, Exception):
            raise found
        return found

    def renewal(self, seconds: float = 900, *, renewable: bool = True) -> None:
        block = {"lease_duration": seconds, "renewable": renewable}
        self.says["renew-self"] = {"auth": block}

    @property
    def now(self) -> str:
        """The token of now, without a use of it."""
        return self.tokens.token().value.reveal()


def token(**auth: Any) -> Token:
    return Token({"client_token": "t", "lease_duration": 60, **auth}, 1000.0, 0.0)


def test_what_a_login_says_of_its_token() -> None:
    plain = token(renewable=True)
    assert (plain.uses, plain.revocable, plain.renewable, plain.pid) == (0, True, True, os.getpid())
    assert (plain.born, plain.expires_at, plain.renew_at) == (1000.0, 1060.0, 1040.0)
    assert not plain.spent
    assert not plain.kept
    assert token(num_uses="3").uses == 0
    assert not token(token_type="batch").revocable
    assert token(token_type="service").revocable
    assert token(lease_duration=0).expires_at == math.inf
    assert not token().renewable
    assert repr(token()) == "Token(ttl=60, renewable=False)"


def test_a_token_ends_with_its_last_use_unless_one_is_kept() -> None:
    few = token(num_uses=2)
    few.sent = 1
    assert (few.spent, few.ends_at) == (False, 1060.0)
    few.sent = 2
    assert (few.spent, few.ends_at) == (True, -math.inf)
    few.kept = True
    assert few.ends_at == 1060.0


def test_each_use_is_counted_and_the_next_token_is_taken() -> None:
    world = World(num_uses=2)
    assert [world.tokens.current().reveal() for _ in range(5)] == [
        "hvs.1", "hvs.1", "hvs.2", "hvs.2", "hvs.3",
    ]  # fmt: skip
    assert world.tokens.few_uses
    held = world.tokens.held
    assert held is not None
    assert held.sent == 1
    assert not World().tokens.few_uses
    once = World(num_uses=1)
    once.tokens.token()
    assert once.tokens.few_uses


def test_a_lease_has_a_use_kept_for_it_and_its_token_is_revoked_at_the_end() -> None:
    world = World(num_uses=3)
    lease = world.tokens.keep(world.clock.time)
    assert (lease.uses, lease.kept) == (2, True)
    assert world.tokens.keep(world.clock.time) is lease
    assert lease.uses == 2  # once for all of them
    for _ in range(3):
        world.tokens.current()
    assert world.now == "hvs.2"
    other = world.tokens.keep(world.clock.time)
    assert other is not lease
    world.tokens.close(world.clock.time + 5.0)
    assert world.sent == [("revoke-self", "hvs.1"), ("revoke-self", "hvs.2")]
    world.tokens.close(world.clock.time + 5.0)
    assert len(world.sent) == 2


def test_a_token_of_one_use_has_none_to_keep() -> None:
    world = World(num_uses=1)
    kept = world.tokens.keep(world.clock.time)
    assert (kept.uses, kept.kept) == (1, False)


def test_a_kept_token_that_has_ended_is_forgotten() -> None:
    world = World(num_uses=3, renewable=False)
    world.tokens.keep(world.clock.time)
    world.clock.advance(900.0)
    world.tokens.keep(world.clock.time)
    assert [t.value.reveal() for t in world.tokens._kept] == ["hvs.2"]


def test_a_token_is_renewed_when_that_is_due_and_not_before() -> None:
    world = World()
    world.renewal()
    assert world.now == "hvs.1"
    world.clock.advance(599.9)
    assert world.now == "hvs.1"
    assert world.sent == []
    world.clock.advance(0.1)
    assert world.now == "hvs.1"
    assert world.sent == [("renew-self", "hvs.1")]
    assert (world.tokens.renewals, world.tokens.logins) == (1, 1)
    assert world.keywords == {
        "method": "post", "until": world.clock.time + 3.0, "idempotent": True,
        "raise_exception": False,
    }  # fmt: skip
    world.clock.advance(599.9)  # from the renewal on
    assert world.now == "hvs.1"
    assert len(world.sent) == 1


def test_one_that_is_not_renewed_any_more_is_replaced() -> None:
    world = World()
    world.renewal(renewable=False)
    world.clock.advance(0.0)
    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    assert world.now == "hvs.2"
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    "said", [Said(403, *DEAD), Said(400, "too old"), {"auth": {"lease_duration": 0}}]
)
def test_one_whose_renewal_is_refused_is_replaced(said: Any) -> None:
    world = World()
    world.says["renew-self"] = said
    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    assert world.now == "hvs.2"
    assert world.tokens.logins == 2


@pytest.mark.parametrize(
    "said",
    [VaultUnavailableError("away"), Said(503, "sealed"), Said(404), {"auth": {}}, {"auth": None}],
)
def test_one_that_cannot_be_renewed_now_is_used_to_its_end(
    said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.says["renew-self"] = said
    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    assert world.now == "hvs.1"
    assert "cannot renew the vault token" in caplog.text
    assert "it is good for 300 s" in caplog.text
    world.clock.advance(4.9)
    assert world.now == "hvs.1"
    assert len(world.sent) == 1  # not at once again
    world.clock.advance(0.2)
    assert world.now == "hvs.1"
    assert len(world.sent) == 2
    world.clock.advance(295.0)
    assert world.now == "hvs.2"


def test_a_renewal_that_takes_to_the_end_and_fails_is_an_error() -> None:
    world = World()

    def away() -> None:
        world.clock.advance(300.0)
        raise VaultUnavailableError("away")

    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    world.tokens._renew = lambda *_: away()  # type: ignore[assignment,method-assign]
    with pytest.raises(VaultUnavailableError, match="away"):
        world.tokens.token()


def test_one_whose_last_use_another_thread_has_taken_is_not_renewed() -> None:
    world = World(num_uses=1)
    world.tokens.current()
    held = world.tokens.held
    assert held is not None
    assert not world.tokens._renew(held, world.clock.time)
    assert world.sent == []


def test_a_login_that_ends_after_the_closing_is_taken_back() -> None:
    world = World()
    world.during = lambda: world.tokens.close(world.clock.time)
    with pytest.raises(ClosedError):
        world.tokens.token()
    assert world.sent == [("revoke-self", "hvs.1")]
    with pytest.raises(ClosedError):
        world.tokens.token()
    assert world.made == 1


def test_a_login_that_another_one_has_overtaken_is_taken_back() -> None:
    """The handler of a signal, for example, has logged in within it."""
    world = World()
    world.during = world.tokens.token
    assert world.now == "hvs.2"
    assert world.sent == [("revoke-self", "hvs.1")]
    assert world.now == "hvs.2"


def test_a_login_that_was_overtaken_by_one_and_the_closing_is_an_error() -> None:
    world = World()

    def both() -> None:
        world.tokens.token()
        world.tokens.close(world.clock.time)

    world.during = both
    with pytest.raises(ClosedError):
        world.tokens.token()
    assert sorted(t for _, t in world.sent if t) == ["hvs.1", "hvs.2"]


def test_after_a_refusal_a_token_is_replaced_if_it_is_dead() -> None:
    world = World()
    first = world.tokens.current()
    world.says["lookup-self"] = {"data": {}}
    assert not world.tokens.replace_if_dead(first)
    assert (world.sent, world.made) == ([("lookup-self", "hvs.1")], 1)
    world.says["lookup-self"] = Said(403, *DEAD)
    held = world.tokens.held
    assert world.tokens.replace_if_dead(first)
    assert world.now == "hvs.2"
    assert held is not None
    assert held.ends_at == -math.inf  # and so have its leases ended
    world.sent.clear()
    assert world.tokens.replace_if_dead(first)  # somebody has done it already
    assert (world.sent, world.made) == ([], 2)


def test_a_token_whose_time_is_up_is_replaced_and_not_renewed() -> None:
    world = World()
    assert world.now == "hvs.1"
    world.clock.advance(900.0)
    assert (world.now, world.sent) == ("hvs.2", [])


def test_who_comes_when_another_thread_has_just_replaced_a_dead_token_takes_that_one() -> None:
    world = World()
    first = world.tokens.current()
    world.says["lookup-self"] = Said(403, *DEAD)
    do = world.tokens._flights.do

    def late(*arguments: Any) -> Token:
        world.tokens._login(world.clock.time)  # the other thread's flight has just landed
        return do(*arguments)

    world.tokens._flights.do = late  # type: ignore[method-assign,assignment]
    assert world.tokens.replace_if_dead(first)
    assert (world.now, world.made) == ("hvs.2", 2)


@pytest.mark.parametrize(("until", "left"), [(None, 60.0), (7.0, 7.0)])
def test_a_look_at_a_token_has_the_time_of_the_request(until: float | None, left: float) -> None:
    world = World()
    end = None if until is None else world.clock.time + until
    first = world.tokens.current(end)
    assert world.until == world.clock.time + left
    assert not world.tokens.replace_if_dead(first, end)
    assert world.keywords["until"] == world.clock.time + left


def test_a_refusal_says_by_its_words_alone_that_a_token_of_few_uses_is_dead() -> None:
    world = World(num_uses=9)
    first = world.tokens.current()
    world.says["lookup-self"] = {"data": {}}
    assert not world.tokens.replace_if_dead(first)
    assert (world.sent, world.made) == ([("lookup-self", "hvs.1")], 1)
    assert world.tokens.replace_if_dead(first, named=True)
    assert (len(world.sent), world.made) == (1, 2)


def test_who_leads_after_another_thread_has_renewed_it_takes_it_as_it_is() -> None:
    world = World()
    held = world.tokens.token()
    assert world.tokens._refresh(world.clock.time) is held
    assert (world.sent, world.made) == ([], 1)


def test_the_old_token_serves_while_another_thread_replaces_it_but_not_beyond_its_end() -> None:
    world = World()
    assert world.now == "hvs.1"
    world.tokens._flights.busy = lambda key: True  # type: ignore[method-assign]
    world.clock.advance(899.0)
    assert world.now == "hvs.1"
    world.clock.advance(1.0)
    assert world.now == "hvs.2"


def test_a_child_waits_for_no_login_of_its_parent() -> None:
    world = World()

    def fork() -> None:
        before = world.tokens._lock
        world.tokens.reset_after_fork()
        assert world.tokens._lock is not before  # a thread that is not there may hold it
        assert not world.tokens._flights.busy("token")

    world.during = fork
    assert world.now == "hvs.1"


def test_a_refusal_of_a_token_that_nobody_has_any_more_is_no_reason_to_keep_it() -> None:
    world = World()
    assert world.tokens.replace_if_dead(Sensitive("hvs.old"))
    assert (world.sent, world.made) == ([], 0)


def test_a_closing_before_a_dead_token_is_replaced_is_an_error() -> None:
    world = World()
    first = world.tokens.current()
    world.says["lookup-self"] = Said(403, *DEAD)
    do = world.tokens._flights.do

    def late(*arguments: Any) -> Token:
        world.tokens.close(world.clock.time)
        return do(*arguments)

    world.tokens._flights.do = late  # type: ignore[method-assign,assignment]
    with pytest.raises(ClosedError):
        world.tokens.replace_if_dead(first)


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_token_serves_to_its_end_while_vault_is_away(left: float) -> None:
    world = World()

    def away(*_: Any) -> bool:
        world.clock.advance(300.0 - left)
        raise VaultUnavailableError("away")

    assert world.now == "hvs.1"
    world.clock.advance(600.0)
    world.tokens._renew = away  # type: ignore[method-assign,assignment]
    if left:
        assert world.now == "hvs.1"
    else:
        with pytest.raises(VaultUnavailableError):
            world.tokens.token()


def test_of_two_uses_one_is_kept_for_a_lease() -> None:
    lease = World(num_uses=2).tokens.keep(0.0)
    assert (lease.uses, lease.kept, lease.spent) == (1, True, False)


def test_a_closing_while_a_dead_token_is_looked_at_is_an_error_for_the_next_request() -> None:
    world = World()
    first = world.tokens.current()

    class Closing(Said):
        def json(self) -> Any:
            world.tokens.close(world.clock.time)
            return super().json()

    world.says["lookup-self"] = Closing(403, *DEAD)
    assert world.tokens.replace_if_dead(first)
    assert (world.tokens.held, world.made) == (None, 1)
    with pytest.raises(ClosedError):
        world.tokens.current()


@pytest.mark.parametrize("said", [Said(500, "x"), Said(404), Said(204)])
def test_what_is_no_verdict_on_a_token_keeps_it(said: Any) -> None:
    world = World()
    first = world.tokens.current()
    world.says["lookup-self"] = said
    assert not world.tokens.replace_if_dead(first)
    assert world.made == 1


def test_what_may_be_dead_is_replaced_once_in_a_while() -> None:
    world = World()
    world.says["lookup-self"] = Said(403, "permission denied")
    first = world.tokens.current()
    world.clock.advance(9.9)
    assert not world.tokens.replace_if_dead(first)
    world.clock.advance(0.1)
    held = world.tokens.held
    assert world.tokens.replace_if_dead(first)
    assert held is not None
    assert held.ends_at == 1900.0  # it may have been good
    second = world.tokens.current()
    world.clock.advance(9.9)
    assert not world.tokens.replace_if_dead(second)
    world.clock.advance(0.1)
    assert world.tokens.replace_if_dead(second)
    assert world.made == 3


def test_what_may_be_dead_and_could_not_be_replaced_is_not_tried_at_once_again() -> None:
    world = World()
    world.says["lookup-self"] = Said(403, "permission denied")
    first = world.tokens.current()
    world.clock.advance(10.0)

    def away() -> None:
        raise VaultUnavailableError("away")

    world.during = away
    with pytest.raises(VaultUnavailableError):
        world.tokens.replace_if_dead(first)
    assert not world.tokens.replace_if_dead(first)
    assert world.made == 2


def test_one_of_few_uses_that_is_said_to_be_dead_is_not_looked_up() -> None:
    world = World(num_uses=5)
    assert world.tokens.replace_if_dead(world.tokens.current(), named=True)
    assert world.sent == []
    assert world.made == 2
    world = World()
    world.says["lookup-self"] = {"data": {}}
    assert not world.tokens.replace_if_dead(world.tokens.current(), named=True)


def test_one_of_few_uses_that_may_be_dead_is_replaced_at_once() -> None:
    world = World(num_uses=3)
    world.says["lookup-self"] = Said(403, "permission denied")
    assert world.tokens.replace_if_dead(world.tokens.current())
    assert world.made == 2
    world = World(num_uses=1)  # no use of it is left for a look
    assert world.tokens.replace_if_dead(world.tokens.current())
    assert (world.made, world.sent) == (2, [])


def test_the_same_dead_token_again_is_no_other() -> None:
    world = World()
    world.same = True
    world.says["lookup-self"] = Said(403, *DEAD)
    assert not world.tokens.replace_if_dead(world.tokens.current())
    assert world.made == 2


def test_a_child_goes_on_with_the_token_unless_it_is_of_few_uses() -> None:
    world = World()
    assert world.now == "hvs.1"
    world.tokens.reset_after_fork()
    assert world.now == "hvs.1"
    world = World(num_uses=3)
    world.tokens.keep(world.clock.time)
    world.tokens.reset_after_fork()
    assert world.tokens.held is None
    world.tokens.close(world.clock.time)
    assert world.sent == []


@pytest.mark.parametrize(
    "how", ["given", "batch", "another process", "at its end", "beyond its end"]
)
def test_a_token_that_is_not_ours_to_revoke_is_left_alone(how: str) -> None:
    world = World(**({"token_type": "batch"} if how == "batch" else {}))
    world.owns_token = how != "given"
    held = world.tokens.token()
    if how == "another process":
        held.pid += 1
    world.clock.advance({"at its end": 900.0, "beyond its end": 901.0}.get(how, 899.0))
    world.tokens.close(world.clock.time)
    assert world.sent == []
    assert world.tokens.held is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(204), ""), (Said(403, *DEAD), ""), (VaultUnavailableError("away"), "VaultUnavailableError"),
        (Said(403, "permission denied"), "the policy does not allow update on auth/token/revoke-self"),
        (Said(400, "no"), "status 400"), (Said(500, "no"), "status 500"),
    ],
)  # fmt: skip
def test_a_token_that_stays_is_said_and_until_when(
    said: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.says["revoke-self"] = said
    world.tokens.token()
    world.clock.advance(100.0)
    world.tokens.close(1105.0)
    assert world.sent == [("revoke-self", "hvs.1")]
    assert world.keywords == {
        "method": "post", "until": 1105.0, "idempotent": True, "although_closed": True,
        "raise_exception": False,
    }  # fmt: skip
    told = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert told == (
        [f"could not revoke the vault token ({words}); it ends by itself in 800 s"] if words else []
    )


def test_a_token_whose_uses_are_spent_is_gone_and_nothing_to_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(num_uses=1)
    world.says["revoke-self"] = Said(403, "permission denied")
    world.tokens.current()
    world.tokens.close(world.clock.time)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (Said(400, "invalid secret id"), AuthenticationError, "refused the login by a test: invalid"),
        (Said(401, "no"), AuthenticationError, "no"), (Said(403, "no"), AuthenticationError, "no"),
        (Said(404, "no"), InvalidResponseError, "status 404 where vault's JSON was expected"),
        (Said(403), InvalidResponseError, "status 403"), (Said(200), InvalidResponseError, "status 200"),
        (Said(204), InvalidResponseError, "status 204"), ([], InvalidResponseError, "status 200"),
        (Said(503, "sealed"), VaultUnavailableError, "failed at the login: sealed"),
        (Said(429), VaultUnavailableError, "status 429"), (Said(500), VaultUnavailableError, "status 500"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_login_by_its_answer(
    said: Any, error: type[Exception], words: str
) -> None:
    world = World()
    world.says["/v1/auth/x/login"] = said
    with pytest.raises(error, match=words):
        world.tokens.call("post", "auth/x/login", token=None, until=7.0, json={"a": "b"})
    assert world.sent == [("/v1/auth/x/login", None)]
    assert world.keywords == {
        "method": "post", "until": 7.0, "idempotent": True, "raise_exception": False, "json": {"a": "b"}
    }  # fmt: skip


def test_a_login_asks_with_what_it_gives_and_its_end() -> None:
    world = World()
    world.says["/v1/x"] = {"data": {}}
    bound = _Bound(world.tokens, 7.0)
    assert bound.call("post", "x", token="t", json={"a": "b"}, idempotent=False) == {"data": {}}
    assert world.sent == [("/v1/x", "t")]
    assert world.keywords == {
        "method": "post", "until": 7.0, "idempotent": False, "raise_exception": False, "json": {"a": "b"}
    }  # fmt: skip
    bound.call("get", "x", token=None)
    assert world.keywords == {
        "method": "get", "until": 7.0, "idempotent": True, "raise_exception": False
    }  # fmt: skip


def test_where_a_login_is_sent_on_to_is_said_without_its_path() -> None:
    assert _sent_on(Said(307, location="https://u:p@vault.test:8200/v1?x=canary")) == (
        " (it sends on to https://****@vault.test:8200)"
    )
    assert _sent_on(Said(307, location="/login")) == ""
    assert _sent_on(Said(307)) == ""
    assert _sent_on([]) == ""


def test_what_was_sent_with_a_login_is_known() -> None:
    sent = _sent("auth/my%20mount/login", "t", {"role_id": "r", "secret_id": "s", "n": 5})
    assert sent == {"t", "my%20mount", "my mount", "r", "s"}
    assert _sent("auth/approle/login", None, None) == set()
    assert _sent("sys/wrapping/lookup", "w", None) == {"w"}

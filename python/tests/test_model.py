"""Cache, leases and login against a model, in random order over a clock of their own.

Whatever happens in between (rotations, revocations, re-creations, outages, forks, threads, closes,
invalidations), a value that is handed out was good at some moment within its promise, and a
database user exists when it is handed out. STRONGROOM_SOAK=1 runs it for minutes instead of
seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from strongroom_dagster import (
    AppRoleAuth,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    Source,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.database import DatabaseLease
from strongroom_dagster.errors import ClosedError

from .harness.clock import FakeClock
from .harness.model import Model
from .harness.scripted import Scripted

SOAK = os.environ.get("STRONGROOM_SOAK") == "1"
EXAMPLES, STEPS = (1500, 60) if SOAK else (36, 40)

NAMES = st.sampled_from(["a", "b"])
COUNTS: Counter[str] = Counter()

#: Pauses are on the clock of the test: few attempts in an outage, and no waiting.
PAUSE = 2.0


class Machine(RuleBasedStateMachine):
    """One Vault, one client at a time, and what it may answer."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.vault = Model(self.clock)
        self.server = Scripted(self.vault)
        self.blocks: list[DatabaseLease] = []
        #: Whether a user may stay that no block uses: of the parent, or ended in an outage.
        self.may_be_left = False
        #: Since when nothing older may be served, by engine and name: the last `invalidate`.
        self.floor: dict[tuple[str, str], float] = {}

    @initialize(
        kv_ttl=st.sampled_from([0.0, 30.0, 60.0]),
        stale=st.sampled_from([0.0, 120.0]),
        entries=st.sampled_from([1, 10_000]),
        grace=st.sampled_from([0.0, 50.0, 600.0]),
        token=st.sampled_from([(100.0, 300.0), (3600.0, 3600.0)]),
        lease=st.sampled_from([(90.0, 200.0), (3600.0, 7200.0)]),
        uses=st.sampled_from([0, 0, 0, 3]),
        tuned=st.booleans(),
    )
    def begin(
        self, kv_ttl: float, stale: float, entries: int, grace: float,
        token: tuple[float, float], lease: tuple[float, float], uses: int, tuned: bool,
    ) -> None:  # fmt: skip
        vault = self.vault
        vault.grace, vault.tuned, vault.token_uses = grace, tuned, uses
        vault.token_ttl, vault.token_max_ttl = token
        vault.lease_ttl, vault.lease_max_ttl = lease
        self.settings = Settings(
            address=self.server.address, kv_ttl=kv_ttl, stale_if_error=stale,
            max_entries=entries, deadline=5.0, revalidate_deadline=1.0, backoff_base=PAUSE, backoff_cap=PAUSE,
        )  # fmt: skip
        for name in ("a", "b"):
            vault.write(name)
            vault.rotate(name)
        self.client = self._new_client()

    def _new_client(self) -> VaultSecrets:
        auth = AppRoleAuth("role", Source.of("secret-id"))
        return VaultSecrets(self.settings, auth, clock=self.clock.clock)

    # --- what must hold -------------------------------------------------------------------------

    def _promise(self, engine: str) -> float:
        """Seconds for which a value may be used after the moment at which it was good."""
        if engine == "apikey":
            return 0.0  # the key itself is good until `until`; the promise never goes past it
        return self.settings.kv_ttl + (self.settings.stale_if_error if self.vault.sealed else 0.0)

    def _judge(self, engine: str, name: str, value: str, began: float) -> None:
        """The value was good at some moment of the call, or before it within its promise."""
        floor = max(began - self._promise(engine), min(self.floor.get((engine, name), -1.0), began))
        for kind, path, version in self.vault.history:
            if (kind, path, version.value) == (engine, name, value):
                assert version.until is None or version.until >= floor, (
                    f"{engine} {name}: {value} ended at {version.until}, "
                    f"and was handed out at {self.clock.time}, floor {floor}"
                )
                return
        raise AssertionError(f"{engine} {name}: nobody ever wrote {value}")

    def _read(self, engine: str, name: str, read: Callable[[], str], there: bool) -> None:
        began, away, asked = self.clock.time, self.vault.sealed, len(self.vault.requests)
        try:
            value = read()
        except VaultUnavailableError:
            assert away, "vault was there"
            COUNTS["reads that failed in an outage"] += 1
        except (SecretNotFoundError, RequestRefusedError):
            assert not there, f"{engine} {name} is there"
            COUNTS["reads of what is gone"] += 1
        else:
            self._judge(engine, name, value, began)
            COUNTS["reads from the cache"] += len(self.vault.requests) == asked
            COUNTS["reads"] += 1

    def _store(self, engine: str) -> dict[str, Any]:
        return self.vault.kv if engine == "kv" else self.vault.keys

    def _there(self, engine: str, name: str) -> bool:
        versions = self._store(engine).get(name) or []
        return bool(versions) and not versions[-1].deleted

    # --- reads ----------------------------------------------------------------------------------

    @rule(name=NAMES, engine=st.sampled_from(["kv", "apikey"]))
    def get(self, name: str, engine: str) -> None:
        where = f"{engine}:{name}"
        self._read(engine, name, lambda: self.client.get(where), self._there(engine, name))

    @rule()
    def get_many(self) -> None:
        wanted = [f"{e}:{n}" for e in ("kv", "apikey") for n in ("a", "b") if self._there(e, n)]
        began = self.clock.time
        try:
            found = self.client.get_many([*wanted, *(f"{w}#value" for w in wanted if w[0] == "k")])
        except VaultUnavailableError:
            assert self.vault.sealed
            return
        for name in wanted:
            engine, _, path = name.partition(":")
            self._judge(engine, path, found[name], began)
            assert engine == "apikey" or found[f"{name}#value"] == found[name]
        COUNTS["get_many"] += 1

    @rule(name=NAMES)
    def wait_for_rotation(self, name: str) -> None:
        if not self._there("apikey", name) or self.vault.sealed:
            return
        key = self.client.api_key(name)
        began = self.clock.time
        new = self.client.wait_for_rotation(name, key, timeout=2)
        if new is not None:
            assert new.key != key.key
            self._judge("apikey", name, new.key, began)
            COUNTS["rotations that a wait has seen"] += 1
        else:
            assert self.vault.keys[name][-1].value == key.key

    @rule(name=NAMES, engine=st.sampled_from(["kv", "apikey"]), how=st.sampled_from("rcdix"))
    def something_happens_while_an_answer_is_under_way(
        self, name: str, engine: str, how: str
    ) -> None:
        path = f"data/{name}" if engine == "kv" else f"creds/{name}"
        there = self._there(engine, name)

        def happen() -> None:
            if how == "i":
                self.invalidate(name, engine)
            elif how == "x":
                self.vault.revoke_tokens()
            elif how == "d":
                self._end(engine, name)
            elif engine == "kv":
                self.vault.write(name)
            else:
                self.vault.rotate(name, compromised=how == "c")

        self.vault.after[path] = happen
        began = self.clock.time
        with contextlib.suppress(SecretNotFoundError, RequestRefusedError, VaultUnavailableError):
            value = self.client.get(f"{engine}:{name}")
            self._judge(engine, name, value, began)
        self.vault.after.pop(path, None)
        COUNTS["answers under way"] += there

    @rule(name=NAMES, engine=st.sampled_from(["kv", "apikey"]))
    def many_threads(self, name: str, engine: str) -> None:
        there = self._there(engine, name)

        def read() -> None:
            where = f"{engine}:{name}"
            self._read(engine, name, lambda: self.client.get(where), there)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(read) for _ in range(4)]:
                done.result(60)
        COUNTS["reads of four threads"] += 1

    # --- what happens in Vault ------------------------------------------------------------------

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        self.vault.write(name)

    @rule(name=NAMES, compromised=st.booleans())
    def rotate(self, name: str, compromised: bool) -> None:
        self.vault.rotate(name, compromised=compromised)
        if compromised:  # whoever is told of it invalidates, and must not see the dead key again
            self.invalidate(name, "apikey")
        COUNTS["rotations"] += 1

    def _end(self, engine: str, name: str, soft: bool = False) -> None:
        self.vault.delete(self._store(engine), name, soft=soft)

    @rule(name=NAMES, engine=st.sampled_from(["kv", "apikey"]), anew=st.booleans())
    def delete(self, name: str, engine: str, anew: bool) -> None:
        self._end(engine, name)
        if engine == "apikey":
            self.invalidate(name, engine)  # a deleted key is dead at once, as a compromised one
        if anew:
            (self.vault.write if engine == "kv" else self.vault.rotate)(name)
            COUNTS["secrets made anew"] += 1

    @rule(name=NAMES)
    def delete_softly(self, name: str) -> None:
        if self._there("kv", name):
            self._end("kv", name, soft=True)

    @rule()
    def revoke_tokens(self) -> None:
        self.vault.revoke_tokens()
        # A lease dies with its token, and nobody is told.
        COUNTS["tokens revoked"] += 1

    @precondition(lambda self: not self.vault.sealed)
    @rule()
    def seal(self) -> None:
        self.vault.sealed = True

    @precondition(lambda self: self.vault.sealed)
    @rule()
    def unseal(self) -> None:
        self.vault.sealed = False

    @rule(seconds=st.sampled_from([0.5, 1.0, 29.0, 31.0, 59.0, 61.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # --- leases ---------------------------------------------------------------------------------

    @rule()
    def enter(self) -> None:
        if len(self.blocks) >= 3:
            return
        lease = self.client.database("reader")
        try:
            self.blocks.append(lease.__enter__())
        except VaultUnavailableError:
            assert self.vault.sealed

    @precondition(lambda self: self.blocks)
    @rule(halves=st.booleans(), seconds=st.sampled_from([0.0, 0.0, 20.0]))
    def credentials(self, halves: bool, seconds: float) -> None:
        lease = self.blocks[-1]
        try:
            if halves:
                username = lease.username
                self.clock.advance(seconds)
                password = lease.password
            else:
                now = lease.current()
                username, password = now.username, now.password
        except VaultUnavailableError:
            assert self.vault.sealed
            return
        number = password.rpartition("-")[2]
        gone = not self.vault.user_exists(username)
        if username != f"user-{number}":
            assert gone, "of two users, and the first one was still good"
        assert not gone or self._revoked(username) or seconds, f"{username} is gone"
        COUNTS["credentials"] += 1

    def _revoked(self, username: str) -> bool:
        """Whether its token was revoked from outside, of which nobody is told."""
        return self.vault.tokens[self.vault.leases[username].token].revoked

    @precondition(lambda self: self.blocks)
    @rule()
    def leave(self) -> None:
        self.blocks.pop().__exit__(None, None, None)
        self.may_be_left = self.may_be_left or self.vault.sealed
        if not self.blocks:
            self._nobody_is_left()

    def _nobody_is_left(self) -> None:
        left = [user for user in self.vault.leases if self.vault.user_exists(user)]
        assert not left or self.may_be_left, left
        COUNTS["blocks that ended"] += 1

    # --- the client -----------------------------------------------------------------------------

    @rule(name=NAMES, engine=st.sampled_from(["kv", "apikey"]))
    def invalidate(self, name: str, engine: str) -> None:
        self.client.invalidate(f"{engine}:{name}")
        self.floor[engine, name] = self.clock.time

    @rule()
    def invalidate_everything(self) -> None:
        self.client.invalidate()
        for engine in ("kv", "apikey"):
            for name in ("a", "b"):
                self.floor[engine, name] = self.clock.time

    @rule()
    def fork_hook(self) -> None:
        """What a child does right after it was forked; it is the child from here on."""
        self.client._after_fork()
        self.may_be_left = self.may_be_left or bool(self.blocks)  # the parent's are the parent's
        COUNTS["forks by the hook"] += 1

    @rule(name=NAMES)
    def fork(self, name: str) -> None:
        """A real child reads what its parent reads; its requests reach the same Vault."""
        if self.vault.sealed or COUNTS["real forks"] >= (2000 if SOAK else 40):
            return
        context = multiprocessing.get_context("fork")
        found: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
        began, there = self.clock.time, self._there("kv", name)

        def child() -> None:
            try:
                found.put(self.client.get(f"kv:{name}"))
            except SecretNotFoundError:
                found.put("")
            except Exception:  # noqa: BLE001 - the parent shows it
                found.put(traceback.format_exc())
            os._exit(0)

        process = context.Process(target=child)
        process.start()
        value = found.get()
        process.join(30)
        if value or there:
            self._judge("kv", name, value, began)
        COUNTS["real forks"] += 1

    @rule(use=st.sampled_from(["get", "database", "current"]))
    def close_and_begin_anew(self, use: str) -> None:
        closed, blocks = self.client, self.blocks
        closed.close()
        logins = self.vault.logins
        uses: dict[str, Callable[[], Any]] = {
            "get": lambda: closed.get("kv:a"),
            "database": lambda: closed.database("reader"),
            "current": lambda: (blocks[-1] if blocks else closed.database("reader")).current(),
        }
        with pytest.raises(ClosedError):
            uses[use]()
        assert self.vault.logins == logins
        self.may_be_left = self.may_be_left or self.vault.sealed
        self._nobody_is_left()
        self.blocks, self.client = [], self._new_client()
        self.floor.clear()
        COUNTS["closes"] += 1

    def teardown(self) -> None:
        self.vault.sealed = False
        if hasattr(self, "client"):
            self.client.close()
        self.server.__exit__()
        COUNTS["runs"] += 1
        super().teardown()


@pytest.mark.timeout(3600 if SOAK else 300)
def test_every_value_was_good_within_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    COUNTS.clear()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
            derandomize=not SOAK, suppress_health_check=list(HealthCheck), print_blob=SOAK,
        ),
    )  # fmt: skip
    counted = ", ".join(f"{count} {what}" for what, count in sorted(COUNTS.items()))
    with capsys.disabled():
        sys.stdout.write(f"\nmodel: {counted}\n")
    # It is worth nothing where the interesting things did not happen.
    for what in ("reads", "rotations", "secrets made anew", "credentials", "real forks", "closes"):
        assert COUNTS[what] >= 10, what

"""A closed client is an error for whoever uses it still: a thread that outlives its step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from strongroom_dagster import ClosedError, StrongroomError, VaultSecrets

from .harness.model import model_vault

USES: dict[str, Callable[[VaultSecrets], Any]] = {
    "get": lambda c: c.get("x"),
    "get, never read before": lambda c: c.get("y"),
    "get_many": lambda c: c.get_many(["x", "y"]),
    "kv": lambda c: c.kv("x"),
    "api_key": lambda c: c.api_key("k"),
    "wait_for_rotation": lambda c: c.wait_for_rotation("k", 1, timeout=1),
    "database": lambda c: c.database("reader"),
    "with": lambda c: c.__enter__(),
}


@pytest.mark.parametrize("use", USES)
def test_a_use_after_close_is_an_error_and_logs_in_nowhere(use: str) -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        vault.write("x")
        vault.rotate("k")
        client.get("x")
        client.api_key("k")
        client.close()
        asked = list(vault.requests)
        with pytest.raises(ClosedError, match="closed"):
            USES[use](client)
        assert vault.requests == asked
        assert not [token for token in vault.tokens if vault.alive(token)]
        client.close()  # twice is no fault


def test_a_lease_that_was_got_before_the_close() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        lease = client.database("reader")
        with lease as db:
            db.current()
            client.close()
            for use in (db.current, lambda: db.username, lease.__enter__):
                with pytest.raises(ClosedError, match=r"the lease of .* is closed"):
                    use()
        assert vault.logins == 1
        assert not [user for user in vault.leases if vault.user_exists(user)]


def test_a_read_that_is_under_way_when_the_client_is_closed_leaves_nothing_behind() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        vault.write("x")
        client.hvac.auth.token.lookup_self()
        vault.after["data/x"] = client.close  # the answer is there, and not yet sent
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(client.get, "x")
            with contextlib.suppress(StrongroomError):  # cut off: right too
                assert reading.result(20).startswith("value")
        assert client.stats.cached == 0
        with pytest.raises(ClosedError, match="closed"):
            client.get("x")
        assert not [token for token in vault.tokens if vault.alive(token)]


def test_a_wait_that_is_under_way_when_the_client_is_closed_leaves_nothing_behind() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        vault.rotate("k")
        key = client.api_key("k")
        vault.rotate("k")
        vault.after["creds/k"] = client.close
        with contextlib.suppress(StrongroomError):
            client.wait_for_rotation("k", key, timeout=1)
        assert client.stats.cached == 0
        assert not [token for token in vault.tokens if vault.alive(token)]

"""A Vault in memory that speaks HTTP (see `scripted`) and lives on a test's clock.

For what a real one does not do on demand: an answer that is under way while something else
happens, a token that ends in the middle, and time that passes without waiting.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from strongroom_dagster import AppRoleAuth, Settings, Source, VaultSecrets

from .clock import FakeClock
from .scripted import Answer, Request, Scripted


@dataclass
class Version:
    """A version of a KV secret or an API key, and from when to when it was good.

    Attributes:
        value: the value of its only field.
        since, until: times on the clock; `until` None: still good.
    """

    value: str
    since: float
    created_time: str
    until: float | None = None
    deleted: bool = False


@dataclass
class Lease:
    """A user of a database."""

    lease_id: str
    token: str
    expires_at: float
    max_at: float
    revoked: bool = False


@dataclass
class Token:
    expires_at: float
    max_at: float
    uses: int = 0
    revoked: bool = False


@dataclass
class Model:
    """The server: call it with a request, as `Scripted` does.

    Attributes:
        token_ttl, token_max_ttl, token_uses, lease_ttl, lease_max_ttl: of what it lends.
        grace: seconds for which a rotated API key goes on working; what readers are promised.
        before, after: run once for the next request whose path ends so: before it is worked on, or
            when its answer is there and not yet sent.
        names_dead: whether a dead token is told from one that may not, as Vault does and OpenBao
            does not.
        denied: paths that no token may ask.
        tuned: whether the mount of the API keys passes `If-None-Match` on.
    """

    clock: FakeClock
    token_ttl: float = 3600.0
    token_max_ttl: float = 4 * 3600.0
    token_uses: int = 0
    lease_ttl: float = 3600.0
    lease_max_ttl: float = 24 * 3600.0
    grace: float = 3600.0
    sealed: bool = False
    names_dead: bool = True
    denied: frozenset[str] = frozenset()
    tuned: bool = True
    kv: dict[str, list[Version]] = field(default_factory=dict)
    keys: dict[str, list[Version]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    history: list[tuple[str, str, Version]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    logins: int = 0
    _made: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # --- what a test does to it -----------------------------------------------------------------

    def _number(self) -> int:
        self._made += 1
        return self._made

    def write(self, path: str, value: str | None = None) -> str:
        """A new version of a KV secret; its value is one that was never there before."""
        return self._add("kv", self.kv, path, value, 0.0)

    def rotate(self, name: str, *, compromised: bool = False) -> str:
        """A new version of an API key; the one before goes on for `grace`, or ends now."""
        return self._add("apikey", self.keys, name, None, 0.0 if compromised else self.grace)

    def _add(
        self,
        engine: str,
        store: dict[str, list[Version]],
        path: str,
        value: str | None,
        grace: float,
    ) -> str:
        with self._lock:
            versions = store.setdefault(path, [])
            number = self._number()
            for old in versions:
                old.until = min(old.until or self.clock.time + grace, self.clock.time + grace)
            version = Version(
                value or f"value-{number}", self.clock.time,
                f"2026-01-01T00:00:{number // 10**6:02d}.{number % 10**6:06d}Z",
            )  # fmt: skip
            versions.append(version)
            self.history.append((engine, path, version))
            return version.value

    def delete(self, store: dict[str, list[Version]], path: str, *, soft: bool = False) -> None:
        """Ends a secret; unless soft, the next write makes it anew with version 1."""
        with self._lock:
            for version in store.get(path, []):
                version.until = min(version.until or self.clock.time, self.clock.time)
            if soft and store.get(path):
                store[path][-1].deleted = True
            else:
                store.pop(path, None)

    def revoke_tokens(self) -> None:
        """Every token, and with it its leases."""
        with self._lock:
            for token in self.tokens.values():
                token.revoked = True

    def alive(self, token: str) -> bool:
        """Whether a token is good now."""
        found = self.tokens.get(token)
        return found is not None and not found.revoked and self.clock.time < found.expires_at

    def user_exists(self, username: str) -> bool:
        """Whether a database user is there now."""
        lease = self.leases[username]
        return not lease.revoked and self.clock.time < lease.expires_at and self.alive(lease.token)

    def count(self, part: str) -> int:
        """How often a path that holds `part` was asked for."""
        return sum(part in path for path in self.requests)

    # --- HTTP -----------------------------------------------------------------------------------

    def __call__(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        path = unquote(parts.path).removeprefix("/v1/")
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append(path)
        self._run(self.before, path)
        with self._lock:
            answer = self._answer(request, path, asked)
        self._run(self.after, path)
        return answer

    def _run(self, hooks: dict[str, Callable[[], None]], path: str) -> None:
        for end in [end for end in hooks if path.endswith(end)]:
            hook = hooks.pop(end, None)
            if hook is not None:
                hook()

    def _answer(self, request: Request, path: str, asked: dict[str, str]) -> Answer:
        if self.sealed:
            return Answer(503, {"errors": ["Vault is sealed"]})
        body = json.loads(request.body or b"{}")
        if path == "auth/approle/login":
            return self._login()
        token = request.headers.get("X-Vault-Token", "")
        if not self.alive(token):
            more = ["invalid token"] if self.names_dead else []
            return Answer(403, {"errors": ["permission denied", *more]})
        held = self.tokens[token]
        if held.uses:
            held.uses -= 1
            held.revoked = held.uses == 0
        if path in self.denied:
            return Answer(403, {"errors": ["permission denied"]})
        engine, _, rest = path.partition("/")
        if path.startswith("auth/token/"):
            return self._token(path, held)
        if path == "sys/leases/renew":
            return self._renew(body)
        if path == "sys/leases/revoke":
            self._lease(body).revoked = True
            return Answer(204)
        if engine == "secret":
            kind, _, name = rest.partition("/")
            return self._data(name, asked) if kind == "data" else self._metadata(name)
        if engine == "apikeys":
            return self._key(rest.removeprefix("creds/"), asked, request)
        if engine == "database":
            if held.revoked:
                return Answer(
                    400, {"errors": ["Secret cannot be returned; token had one use left"]}
                )
            return self._credentials(token)
        return Answer(404, {"errors": []})

    def _login(self) -> Answer:
        self.logins += 1
        now, name = self.clock.time, f"token-{self._number()}"
        self.tokens[name] = Token(now + self.token_ttl, now + self.token_max_ttl, self.token_uses)
        auth = {
            "client_token": name, "lease_duration": int(self.token_ttl), "renewable": True,
            "num_uses": self.token_uses,
        }  # fmt: skip
        return Answer(200, {"auth": auth})

    def _token(self, path: str, held: Token) -> Answer:
        now = self.clock.time
        if path.endswith("revoke-self"):
            held.revoked = True
            return Answer(204)
        if path.endswith("lookup-self"):
            return Answer(200, {"data": {"ttl": int(held.expires_at - now), "renewable": True}})
        held.expires_at = min(now + self.token_ttl, held.max_at)
        granted = int(held.expires_at - now)
        return Answer(200, {"auth": {"lease_duration": granted, "renewable": True}})

    def _lease(self, body: dict[str, Any]) -> Lease:
        return next(x for x in self.leases.values() if x.lease_id == body["lease_id"])

    def _renew(self, body: dict[str, Any]) -> Answer:
        lease, now = self._lease(body), self.clock.time
        if lease.revoked or now >= lease.expires_at or not self.alive(lease.token):
            return Answer(400, {"errors": ["lease not found"]})
        lease.expires_at = min(now + self.lease_ttl, lease.max_at)
        return Answer(200, {"lease_duration": int(lease.expires_at - now), "renewable": True})

    def _credentials(self, token: str) -> Answer:
        now, number = self.clock.time, self._number()
        lease = Lease(f"lease-{number}", token, now + self.lease_ttl, now + self.lease_max_ttl)
        self.leases[f"user-{number}"] = lease
        data = {"username": f"user-{number}", "password": f"password-{number}"}
        return Answer(
            200,
            {
                "data": data, "lease_id": lease.lease_id, "renewable": True,
                "lease_duration": int(self.lease_ttl),
            },
        )  # fmt: skip

    def _data(self, path: str, asked: dict[str, str]) -> Answer:
        versions = self.kv.get(path, [])
        number = int(asked.get("version") or len(versions))
        if not 1 <= number <= len(versions):
            return Answer(404, {"errors": []})
        version = versions[number - 1]
        metadata = self._metadata_of(number, version)
        if version.deleted:
            return Answer(404, {"data": {"data": None, "metadata": metadata}})
        return Answer(200, {"data": {"data": {"value": version.value}, "metadata": metadata}})

    def _metadata_of(self, number: int, version: Version) -> dict[str, Any]:
        return {
            "version": number, "created_time": version.created_time, "destroyed": False,
            "deletion_time": version.created_time if version.deleted else "",
        }  # fmt: skip

    def _metadata(self, path: str) -> Answer:
        versions = self.kv.get(path)
        if not versions:
            return Answer(404, {"errors": []})
        numbered = {str(n): self._metadata_of(n, v) for n, v in enumerate(versions, 1)}
        return Answer(200, {"data": {"current_version": len(versions), "versions": numbered}})

    def _key(self, name: str, asked: dict[str, str], request: Request) -> Answer:
        versions = self.keys.get(name)
        if not versions:
            return Answer(404, {"errors": []})
        number = int(asked.get("version") or len(versions))
        version = versions[number - 1]
        if version.until is not None and self.clock.time >= version.until:
            return Answer(400, {"errors": [f"version {number} is past its grace period"]})
        etag = f'"{version.created_time}-{version.until}"'
        known = self.tuned and request.headers.get("If-None-Match") == etag
        if "wait" in asked and not self.tuned and "if_version" not in asked:
            return Answer(400, {"errors": ["wait needs to know what to wait for"]})
        if known or asked.get("if_version") == str(number):
            self.clock.advance(float(asked.get("wait", 0)))
            if version is self.keys.get(name, [None])[-1]:
                return Answer(304)
        left = self.grace if version.until is None else version.until - self.clock.time
        data = {
            "key": version.value, "version": number, "etag": etag, "cache_ttl": int(left),
            "created_time": version.created_time, "ttl": max(int(left), 1),
            "state": "current" if version.until is None else "grace",
        }  # fmt: skip
        return Answer(200, {"data": data})


@contextmanager
def model_vault(**options: Any) -> Iterator[tuple[Model, FakeClock, Callable[..., VaultSecrets]]]:
    """A model that listens, its clock, and a maker of clients, which are closed at the end."""
    clock = FakeClock()
    model = Model(clock, **options)
    made: list[VaultSecrets] = []
    with Scripted(model) as server:

        def client(**settings: Any) -> VaultSecrets:
            values = {"address": server.address, "deadline": 5.0, **settings}
            auth = AppRoleAuth("role", Source.of("secret-id"))
            made.append(VaultSecrets(Settings(**values), auth, clock=clock.clock))
            return made[-1]

        try:
            yield model, clock, client
        finally:
            model.sealed = False
            for one in made:
                one.close()

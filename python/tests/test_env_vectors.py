"""The mapping file and values as text, by the table that `strongroom env` is tested with as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from strongroom_dagster import ConfigurationError, Settings, Source, StrongroomError, TokenAuth
from strongroom_dagster.client import VaultSecrets
from strongroom_dagster.env import EnvironmentMap, Variable, VaultEnviron

from .harness.scripted import Answer, Request, Scripted

VECTORS = json.loads((Path(__file__).parent / "env_vectors.json").read_text(encoding="utf-8"))
assert len(VECTORS["mappings"]) >= 30
assert len(VECTORS["values"]) >= 30


@pytest.mark.parametrize("vector", VECTORS["mappings"], ids=lambda vector: vector["it"])
def test_the_mapping_file(vector: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes(vector["toml"].encode())
    if "variables" in vector:
        wanted = {name: Variable(*parts) for name, parts in vector["variables"].items()}
        assert EnvironmentMap.read(file).variables == wanted
        return
    with pytest.raises(ConfigurationError) as caught:
        EnvironmentMap.read(file)
    for words in vector["faults"]:
        assert words in str(caught.value)


@contextmanager
def vault_with(vector: dict[str, Any]) -> Iterator[VaultSecrets]:
    """A client of a Vault that answers with the vector's secret or key, byte by byte."""
    secret, key = vector.get("secret"), vector.get("key")

    def answer(request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path == "/v1/auth/token/lookup-self":
            return Answer(200, {"data": {"ttl": 3600, "renewable": False}})
        if path == "/v1/secret/data/x" and secret is not None:
            meta = '"metadata": {"version": 1, "created_time": "2026-01-01T00:00:00Z"}'
            return Answer(200, f'{{"data": {{"data": {secret}, {meta}}}}}'.encode())
        if path == "/v1/apikeys/creds/x" and key is not None:
            start = '{"data": {"version": 1, "cache_ttl": 60, "etag": "\\"1\\"", '
            return Answer(200, (start + key[1:] + "}").encode())
        return Answer(404, {"errors": []})

    with (
        Scripted(answer) as server,
        VaultSecrets(Settings(address=server.address), TokenAuth(Source.of("t"))) as client,
    ):
        yield client


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: vector["it"])
def test_a_value_as_text(vector: dict[str, Any], tmp_path: Path) -> None:
    engine = "apikeys" if "key" in vector else "kv"
    mount = "apikeys" if "key" in vector else "secret"
    variable = Variable(engine, mount, "x", vector.get("field"))
    with vault_with(vector) as client:
        environ = VaultEnviron(EnvironmentMap(tmp_path, {"A": variable}), client, {})
        if vector.get("refused"):
            with pytest.raises(StrongroomError):
                _ = environ["A"]
        else:
            assert environ["A"] == vector["text"]

"""The pytest plugin that puts our client under hvac's suite.

It is loaded into a pytest of its own, in the folder of hvac's source package, where `tests` is
hvac's. `HVAC_SUITE_CLIENT=plain` leaves hvac as it is.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from strongroom_dagster import Settings, VaultSecrets
from strongroom_dagster.methods import Caller


class NoLogin:
    """What plain hvac has without a token: nothing, which Vault refuses."""

    owns_token = False

    def login(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002
        """The token that nobody has."""
        return {"client_token": "hvs.none", "lease_duration": 0, "renewable": False}

    def describe(self) -> str:
        """For messages."""
        return "nothing"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001
    """Before hvac's test modules are imported."""
    from tests import utils  # type: ignore[attr-defined]  # hvac's

    utils.get_vault_version_string.cache = os.environ["HVAC_SUITE_VAULT_VERSION"]
    if os.environ.get("HVAC_SUITE_CLIENT") == "plain":
        return
    plain = utils.create_client

    def create_client(url: str, use_env: bool = False, session: Any = None, **options: Any) -> Any:
        if not url.startswith("https://"):
            return plain(url, use_env, session, **options)
        client = VaultSecrets(
            Settings(
                address=url,
                ca_bundle=utils.get_config_file_path("server-cert.pem"),
                client_certificate=utils.get_config_file_path("client-cert.pem"),
                client_key=utils.get_config_file_path("client-key.pem"),
                deadline=30.0,
            ),
            NoLogin(),
        ).hvac
        token = options.pop("token", None)
        if token is not None:
            client.token = token
        assert not options, f"the suite asks for {sorted(options)}"
        return client

    utils.create_client = create_client

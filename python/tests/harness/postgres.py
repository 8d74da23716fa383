"""A real PostgreSQL on loopback, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from . import wait


def binaries() -> Path | None:
    """The directory of the newest server that Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A server with a superuser `vaultadmin` and a database `bikes`."""

    def __init__(self) -> None:
        bin_ = binaries()
        assert bin_ is not None
        self._bin = bin_
        self._directory = Path(tempfile.mkdtemp(prefix="strongroom-pg-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self._directory, owner.pw_uid, owner.pw_gid)
            self._as = ["runuser", "-u", "postgres", "--"]
        self.port = wait.free_port()
        self.password = "not-a-secret-in-this-test"

    def _run(self, *command: str, **keywords: Any) -> None:
        done = subprocess.run(
            [*self._as, *command], capture_output=True, text=True, check=False, cwd="/", **keywords
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """initdb and start."""
        data = str(self._directory / "data")
        password_file = self._directory / "password"
        password_file.write_text(self.password + "\n")
        password_file.chmod(0o600)
        owner = self._directory.stat()
        os.chown(password_file, owner.st_uid, owner.st_gid)
        self._run(
            str(self._bin / "initdb"), "-D", data, "-U", "vaultadmin", "-A", "scram-sha-256",
            f"--pwfile={password_file}", "--no-sync"
        )  # fmt: skip
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
            f"{self._directory} -c fsync=off -c max_connections=200"
        )
        log = str(self._directory / "log")
        self._run(str(self._bin / "pg_ctl"), "-D", data, "-l", log, "-w", "-o", options, "start")
        with self.admin("postgres") as conn:
            conn.execute("CREATE DATABASE bikes")
        with self.admin() as conn:
            conn.execute("CREATE TABLE stations (name text, bikes int)")
            conn.execute("INSERT INTO stations VALUES ('Main Street', 4), ('Harbour', 7)")
            # Owner of what the dynamic roles use; they are its members.
            conn.execute("CREATE ROLE reader NOLOGIN")
            conn.execute("GRANT SELECT ON stations TO reader")

    def stop(self) -> None:
        """Stops it and removes its directory."""
        data = str(self._directory / "data")
        if (self._directory / "data" / "postmaster.pid").exists():
            self._run(str(self._bin / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(self._directory)

    def admin(self, database: str = "bikes") -> psycopg.Connection[Any]:
        """A connection of the superuser, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=database, user="vaultadmin",
            password=self.password, autocommit=True,
        )  # fmt: skip

    @property
    def conninfo(self) -> str:
        """Without user and password."""
        return f"host=127.0.0.1 port={self.port} dbname=bikes"

    @property
    def url(self) -> str:
        """For SQLAlchemy, without user and password."""
        return f"postgresql+psycopg://127.0.0.1:{self.port}/bikes"

    def roles(self) -> set[str]:
        """The users that Vault has made and not removed."""
        with self.admin() as conn:
            rows = conn.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").fetchall()
        return {row[0] for row in rows}

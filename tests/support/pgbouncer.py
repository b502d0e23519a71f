"""PgBouncer in transaction mode, in front of one PostgreSQL."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from outbox.devstack.postgres import unprivileged_user
from outbox.devstack.server import HOST, Server


class PgBouncer(Server):
    """Every database of the server at `url`, by its own name, through a pool of connections."""

    name = "pgbouncer"

    def __init__(self, program: str, url: str, *, pool_size: int = 20) -> None:
        super().__init__()
        self._program = program
        self._behind = make_url(url)
        self._pool_size = pool_size

    @property
    def url(self) -> str:
        return self.url_of(str(self._behind.database))

    def url_of(self, database: str) -> str:
        pooled = self._behind.set(host=HOST, port=self.port, database=database)
        return pooled.render_as_string(hide_password=False)

    @property
    def user(self) -> str | None:
        return unprivileged_user() if os.geteuid() == 0 else None

    @property
    def _file(self) -> Path:
        return self.home / "pgbouncer.ini"

    async def prepare(self) -> None:
        users = self.home / "users.txt"
        users.write_text(f'"{self._behind.username}" "{self._behind.password}"\n')
        self._file.write_text(
            "[databases]\n"
            f"* = host={self._behind.host} port={self._behind.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._pool_size}\nmax_client_conn = 500\n"
        )
        if self.user is not None:
            for path in (self.home, users, self._file):
                shutil.chown(path, self.user)

    def command(self) -> list[str]:
        return [self._program, str(self._file)]

    async def answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, statement_cache_size=0)
        except asyncpg.PostgresError:
            return False
        await connection.close()
        return True

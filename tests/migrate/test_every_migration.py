"""What each migration is held to, those that are yet to be written too."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from alembic import command

from outbox.huleedu.migrate import HULEEDU
from outbox.migrate import OUTBOX, Migrations
from outbox.schema import catalog
from outbox.settings import Settings
from tests.support.migrations import Scripts, complaints, revisions, up_and_down
from tests.support.postgres import Cluster
from tests.support.sql import connection

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2] / "migrations"
THERE = [path.relative_to(ROOT) for path in ROOT.glob("**/versions/*.py")]

FROZEN = {
    "versions/0001_outbox.py": "5abb6b010d1e24fe2d453eef9e948c72c0e1f909385429011deadcd3a3af9389",
    "versions/0002_sendable.py": "d58c47c42168a30ab20a4c292b06c95fa42f493f729d03b2fac59d8f7c116ed6",
    "versions/0003_sendable_before.py": "b792b1f41ef0655b20249d7a9f2378d3e8df665dacc73ce427bdc4205dc7675a",
    "versions/0004_walks.py": "60560fddec57f981e2ea98efe129de63e302de0126535cbb948a6507ef42345f",
    "versions/0005_inbox_by_age.py": "e84e2d75d0862dd4b41e8327f8c1d9026f027bb96344e5c005797a7dfc92d0da",
    "versions/0006_positive_ids.py": "e5fb0ed11625dcf3fdef32809acad84cbda79884ff0b5dd8a11c5d9957f4d325",
    "versions/0007_positive_before.py": "c2c80cd09a083ff247273440f0852e4baf4c160bdca5169be2a3057407db38e7",
    "versions/0008_gap_note.py": "94f9d047ce57a695296b765bb2a4a96ef98ae905b175720b09889a63b901be32",
    "versions/0009_gap_notes.py": "da66b401cc29f471516656d4d8eca9acf48ff1e9d11324c3ba16e53b15e26cc6",
    "versions/0010_fingerprint.py": "87a67fe3de227049da7efb11eecf6539a40ed8be3f1718fab9b28e7720f9c888",
    "versions/0011_fingerprints.py": "68bbef07a46617868d77a3f328187886512c579f32e2d50107cb741849846672",
    "versions/0012_state.py": "2c3a8154ecae734bcfaabfe5d8e73f8cf88c9cc3f6daf906bf3dfc15b2c0e145",
    "versions/0013_pauses.py": "1a59639fc35ff91726fb2a0a0814061c77a44eedba953421968aad126cfe4a86",
    "versions/0014_breakers.py": "1fc727ee044e2b5606abeaa778ddc305f5dc8b6483adff04723a6f590ba76795",
    "versions/0015_parked_keys.py": "732fc684b42f0157c2368d5c9802847ca693de0d5b7bb5f32568438f55ecb176",
    "versions/0016_operations.py": "ceb47efaf7670d1c374cdeee61ef31c513e40e64b0ef147c3ed3de87c32efcfd",
    "huleedu/versions/0001_huleedu.py": "2e828c4c158858ab303b55dba75327052f594de14e0e04264e76db7f8f5bc848",
    "huleedu/versions/0002_page.py": "633740fff554015a23deb601f0862b45fb0c591e6c2d9bc125cb1dd16f308344",
    "huleedu/versions/0003_excess.py": "8f37af6ed8a2b1bda05d296b2d9171576c141b7fa0d1937daada9b8b68a52646",
    "huleedu/versions/0004_parked.py": "a78a392982a21bc9102fe15c6a7255ea56145a1ceb85ddc77c83c74d32b23026",
    "huleedu/versions/0005_kinds.py": "ce1057cf1487822f3aa059c49a0fb59045d0503973f027e5d21ba8659773c94c",
    "huleedu/versions/0006_record.py": "b8fefc51fdf8895cc8d102352243735b2f88a5d8b5162ca609b112d537300676",
    "huleedu/versions/0007_place.py": "e5af81bc4a30f5f81bce732eea0ac7f7fb834340440fe234c8c772e129016bd3",
}
"""Each migration, by the SHA-256 of its file."""

EVERY = [
    pytest.param(migrations, revision, id=f"{migrations.version_table}-{revision}")
    for migrations in (OUTBOX, HULEEDU)
    for revision in revisions(migrations)
]
every_migration = pytest.mark.parametrize(("migrations", "revision"), EVERY)


@pytest.mark.parametrize("path", sorted({*FROZEN, *map(str, THERE)}))
def test_a_migration_that_was_released_never_changes(path: str) -> None:
    assert path in FROZEN, f"{path} is new: freeze it here as soon as others may have run it"
    digest = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
    assert digest == FROZEN[path], (
        f"{path} has changed. Databases have run it as it was and will not run it again: put it back, and "
        "write what should change as a new migration (docs/migrations.md says how)"
    )


@every_migration
async def test_it_harms_no_writer_and_no_older_relay(
    empty_database: str, migrations: Migrations, revision: str
) -> None:
    assert await complaints(migrations, revision, empty_database) == []


@every_migration
async def test_it_goes_down_and_up_again(
    every_postgres: Cluster, migrations: Migrations, revision: str
) -> None:
    async with every_postgres.database() as url, every_postgres.database() as other:
        before, after, before_again, after_again = await up_and_down(migrations, revision, url)
        assert before != after
        assert before == before_again
        assert after == after_again
        # From there on it comes to the same as in a database that never went back.
        settings, fresh = Settings(database_url=url), Settings(database_url=other)
        for each in (settings, fresh):
            await asyncio.to_thread(migrations.upgrade, each)
        await asyncio.to_thread(command.check, migrations.config(settings))
        async with connection(url) as db, connection(other) as unspoilt:
            assert await catalog.catalog(db) == await catalog.catalog(unspoilt)
            assert await catalog.unvalidated(db) == []


# What they are held to notices what it should


@pytest.mark.parametrize(
    ("careless", "told"),
    [
        ('op.create_index("x", "outbox_queue", ["bytes"])', "x is built while nobody can write outbox_queue"),
        (
            'op.alter_column("outbox_queue", "destination_hash", type_=sa.Numeric())',
            "outbox_queue is rewritten",
        ),
        (
            'op.add_column("outbox", sa.Column("x", sa.UUID(), server_default=sa.text("gen_random_uuid()")))',
            "outbox is rewritten",
        ),
        (
            'op.execute("ALTER TABLE outbox ADD CONSTRAINT x CHECK (id > 0)")',
            "x reads all of outbox while nobody can write",
        ),
        (
            'op.execute("ALTER TABLE outbox_queue ADD CONSTRAINT x CHECK (id > 0) NOT VALID")',
            "x is a CHECK on outbox_queue, which fails older relays",
        ),
        ('op.execute("DROP TABLE outbox_inbox")', "outbox_inbox is rewritten or dropped"),
    ],
)
async def test_a_careless_migration_is_noticed(
    scripts: Scripts, database: str, careless: str, told: str
) -> None:
    revision = scripts.add(careless)
    (complaint,) = await complaints(scripts.migrations, revision, database)
    assert complaint.startswith(told)


@pytest.mark.parametrize("kind", range(4), ids=["column", "index", "checks", "validated"])
async def test_a_migration_of_each_kind_is_as_it_should_be(
    scripts: Scripts, every_postgres: Cluster, kind: int
) -> None:
    revision = scripts.add_one_of_each_kind()[kind]
    async with every_postgres.database() as url, every_postgres.database() as other:
        before, after, before_again, after_again = await up_and_down(scripts.migrations, revision, url)
        assert before != after
        assert before == before_again
        assert after == after_again
        assert await complaints(scripts.migrations, revision, other) == []

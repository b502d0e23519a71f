"""An address of a database means what it means to psql, or says which option cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from outbox.errors import SettingsError
from outbox.settings import Address, Host, Settings

NAMED = {"user": "u", "password": "p", "dbname": "d", "host": "h", "port": "5433"}

# What of it is not what `NAMED` says; psql reads each in the same way.
READ: dict[str, dict[str, str | None]] = {
    "postgresql://u:p@h:5433/d": {},
    "postgres://u:p@h:5433/d": {},
    "postgresql+asyncpg://u:p@h:5433/d": {},
    "postgresql+psycopg://u:p@h:5433/d": {},
    "postgresql://u:p@h:5433/d?": {},
    "postgresql://u:p%40%2F%3A%25%23%3F%26+%20%C3%BC@h:5433/d": {"password": "p@/:%#?&+ ü"},
    "postgresql://u%40tenant:p@h:5433/d": {"user": "u@tenant"},
    "postgresql://u:p@h:5433/a%20b": {"dbname": "a b"},
    "postgresql://u:p@h/d": {"port": None},
    "postgresql://u@h:5433": {"password": None, "dbname": None},
    "postgresql://": dict.fromkeys(NAMED),
    "postgresql:///d?host=h&port=5433&user=u&password=p": {},
    "postgresql://u:p@other:1/d?host=h&port=5433": {},
    "postgresql://u:p@h:5433,i:5434/d": {"host": "h,i", "port": "5433,5434"},
    "postgresql://u:p@h,i:5434/d": {"host": "h,i", "port": ",5434"},
    "postgresql://u:p@[::1]:5433/d": {"host": "::1"},
    "postgresql://u:p@%2Fvar%2Frun:5433/d": {"host": "/var/run"},
    "postgresql:///d?host=/var/run&port=5433&user=u&password=p": {"host": "/var/run"},
    "postgresql://u:p@h:5433/d?sslmode=verify-full&sslrootcert=/a%20b": {
        "sslmode": "verify-full",
        "sslrootcert": "/a b",
    },
    "postgresql://u:p@h:5433/d?sslrootcert=system": {"sslrootcert": "system", "sslmode": "verify-full"},
    "postgresql://u:p@h:5433/d?ssl=true": {"sslmode": "require"},
    "postgresql://u:p@h:5433/d?ssl=verify-full": {"sslmode": "verify-full"},
    "postgresql://u:p@h:5433/d?options=-c%20a=1+2": {"options": "-c a=1+2"},
    "postgresql://u:p@h:5433/d?application_name=&connect_timeout=3": {"connect_timeout": "3"},
    # What providers put into theirs.
    "postgres://u:p@h:5433/d?sslmode=require&options=endpoint%3Dep-1&channel_binding=prefer": {
        "sslmode": "require",
        "options": "endpoint=ep-1",
        "channel_binding": "prefer",
    },
    "postgres://u.ref:p@h:5433/d": {"user": "u.ref"},
    "postgresql://u:p@h:5433/d?sslmode=verify-full&sslrootcert=/rds.pem&target_session_attrs=read-write": {
        "sslmode": "verify-full",
        "sslrootcert": "/rds.pem",
        "target_session_attrs": "read-write",
    },
    "postgresql://u:p@/d?host=/cloudsql/project:region:name&port=5433": {
        "host": "/cloudsql/project:region:name"
    },
}

REFUSED = {
    "mysql://h/d": "must look like postgresql://",
    "postgresql://u:a/b@h/d": "what is special in a password percent-encoded",
    "postgresql://h:0/d": "port=0 is no port",
    "postgresql://h:1,i:2,j/d?port=1,2": "port has 2 numbers for 3 hosts",
    "postgresql://h/d?sslmode=no-verify": "sslmode=no-verify cannot be had with asyncpg, only disable, allow",
    "postgresql://h/d?sslmode=require&sslrootcert=system": "sslmode=require is too weak for",
    "postgresql://h/d?channel_binding=require": "channel_binding=require cannot be had with asyncpg",
    "postgresql://h/d?gssencmode=require": "gssencmode=require cannot be had",
    "postgresql://h/d?hostaddr=10.0.0.1": "hostaddr cannot be had with asyncpg: write the address",
    "postgresql://h/d?require_auth=scram-sha-256": "require_auth cannot be had with asyncpg; leave it out",
    "postgresql://h/d?target_session_attrs=master": "target_session_attrs=master cannot be had",
    "postgresql://h/d?client_encoding=latin1": "client_encoding=latin1 cannot be had",
    "postgresql://h/d?connect_timeout=soon": "connect_timeout=soon is no whole number",
    "postgresql://h/d?service=nowhere": "service=nowhere is neither in",
    "postgresql://h/d?pgbouncer=true": "pgbouncer is no option that psql takes: set OUTBOX_DATABASE_POOLER",
    "postgresql://h/d?schema=app": "schema is no option that psql takes: set OUTBOX_DATABASE_SCHEMA",
    "postgresql://h/d?connection_limit=5": "connection_limit is no option that psql takes: it is Prisma's",
    "postgresql://h/d?statement_timeout=5s": "say options=-c%20statement_timeout%3D…",
    "postgresql://h/d?sslmod=require": "sslmod is no option that psql takes",
}


@pytest.fixture(autouse=True)
def _no_variables_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSYSCONFDIR", "/nonexistent")


@pytest.mark.parametrize("url", READ)
def test_an_address_is_read_as_psql_reads_it(url: str) -> None:
    expected = {name: value for name, value in {**NAMED, **READ[url]}.items() if value is not None}
    settings = Settings.model_validate({"database_url": url})
    assert settings.address.options == expected


@pytest.mark.parametrize("url", REFUSED)
def test_an_option_that_cannot_be_had_is_refused_by_its_name_when_settings_are_read(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load({"OUTBOX_DATABASE_URL": url}, Path("/nonexistent/.env"))
    assert str(error.value).startswith("OUTBOX_DATABASE_URL=")
    assert REFUSED[url] in str(error.value)


def test_each_host_has_its_port_or_shares_the_only_one() -> None:
    assert Address.of("postgresql://a:1,b,[::1]:3/").hosts == (Host("a", 1), Host("b", 5432), Host("::1", 3))
    assert Address.of("postgresql:///?host=a,b&port=7").hosts == (Host("a", 7), Host("b", 7))
    assert Address.of("postgresql:///d").hosts == (Host(None, 5432),)


def test_a_service_fills_in_what_the_address_leaves_open_and_variables_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text("# ours\n[app]\nhost=a,b\nuser=app\ndbname=x\noptions=-c geqo=off\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGUSER", "nobody")
    monkeypatch.setenv("PGAPPNAME", "me")
    found = Address.of("postgresql:///d?service=app")
    assert found.hosts == (Host("a", 5432), Host("b", 5432))
    wanted = {"user": "app", "dbname": "d", "options": "-c geqo=off", "application_name": "me"}
    assert wanted.items() <= found.options.items()
    services.write_text("[app]\nrequirepeer=postgres\n")
    with pytest.raises(ValidationError, match="requirepeer cannot be had"):
        Settings.model_validate({"database_url": "postgresql:///d?service=app"})


def test_no_password_is_in_what_is_printed_of_an_address() -> None:
    assert "geheim" not in repr(Address.of("postgresql://u:geheim@h/d?sslpassword=geheim"))

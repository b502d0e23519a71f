"""The address of a database as psql takes it: its options, and which of them cannot be had here.

An option is what the address says, else what its service file says, else libpq's variable for it (PGHOST,
PGSSLMODE, …). What asyncpg would ignore or take for something else is refused by its name.
"""

from __future__ import annotations

import configparser
import getpass
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote

_ADDRESS = re.compile(
    r"postgres(ql)?(\+\w+)?://"
    r"((?P<user>[^:@/]*)(:(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^/?]*)(/(?P<dbname>[^?]*))?(\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST = re.compile(r"(\[(?P<ipv6>[^\]]+)\]|(?P<name>[^:\[\]]*))(:(?P<port>\d*))?")
_LOOKS = "must look like postgresql://user:password@host:port/database"

_TLS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_OTHERS = ("krbsrvname", "gsslib")

_HONOURED = {
    *(*_TLS, *_OTHERS, "host", "port", "dbname", "user", "password", "passfile", "service", "servicefile"),
    *("options", "application_name", "fallback_application_name", "connect_timeout", "target_session_attrs"),
    *("load_balance_hosts", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
}
_NUMBERS = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)
_VALUES: Mapping[str, Collection[str]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
    # Of these asyncpg has one way, which these values ask for or allow.
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "client_encoding": ("auto", "utf8", "utf-8", "UTF8", "UTF-8", "unicode", "UNICODE"),
    "replication": ("false", "off", "no", "0"),
    "sslcompression": ("0", "1"),
    "sslcertmode": ("allow",),
    "sslsni": ("1",),
    "min_protocol_version": ("3.0",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
}
_REFUSED = {
    **dict.fromkeys(("hostaddr", "requirepeer", "require_auth", "sslcrldir", "sslkeylogfile")),
    **dict.fromkeys(("scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id")),
    **dict.fromkeys(("oauth_client_secret", "oauth_scope")),
}
_REMEDIES = {
    "channel_binding": "asyncpg has none; sslmode=verify-full with sslrootcert=system, or the authority's "
    "file, keeps others out of the middle too",
    "hostaddr": "write the address as the host",
    "requirepeer": "leave it out",
    "sslcrldir": "use sslcrl",
    "pgbouncer": "set OUTBOX_DATABASE_POOLER=transaction instead",
    "schema": "set OUTBOX_DATABASE_SCHEMA instead",
    "currentSchema": "set OUTBOX_DATABASE_SCHEMA instead",
    "search_path": "set OUTBOX_DATABASE_SCHEMA, or options=-c%20search_path%3D…",
    **dict.fromkeys(
        (
            "connection_limit",
            "pool_timeout",
            "socket_timeout",
            "sslaccept",
            "sslidentity",
            "single_use_connections",
        ),
        "it is Prisma's, leave it out",
    ),
    **dict.fromkeys(
        ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"),
        "it is SQLAlchemy's, leave it out",
    ),
}
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "service": "PGSERVICE",
    "servicefile": "PGSERVICEFILE",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "require_auth": "PGREQUIREAUTH",
}
"""Those that asyncpg does not read, or that are needed here; it reads PGPASSWORD and the like by itself."""


class Host(NamedTuple):
    """A server to try; a name that begins with a slash is the folder of a Unix socket."""

    name: str | None
    """None: wherever a server is on this machine."""
    port: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and how to connect to it, in libpq's words."""

    options: Mapping[str, str] = field(repr=False)
    """What is set, by libpq's names."""
    hosts: tuple[Host, ...]
    """In the order in which they are tried."""

    @classmethod
    def of(cls, url: str) -> Self:
        """Reads an address; its service file and libpq's variables fill in what it leaves open.

        Raises ValueError, which names the option, where something would be ignored that psql heeds.
        """
        given, variables = _without_empty(_parsed(url)), _without_empty(_variables())
        options = {**variables, **_service({**variables, **given}), **given}
        for name, value in options.items():
            _check(name, value)
        if options.get("sslrootcert") == "system":
            options.setdefault("sslmode", "verify-full")
            if options["sslmode"] != "verify-full":
                raise ValueError(
                    f"sslmode={options['sslmode']} is too weak for sslrootcert=system: verify-full"
                )
        return cls(options, tuple(_hosts(options.get("host", ""), options.get("port", ""))))

    def for_asyncpg(self, *, tls: bool) -> dict[str, str]:
        """Returns the options that asyncpg reads by itself, with those of TLS or without."""
        names = (*_TLS, *_OTHERS) if tls else _OTHERS
        found = {name: self.options[name] for name in names if name in self.options}
        if found.get("sslrootcert") == "system":
            del found["sslrootcert"]
        return found

    def password(self, host: Host) -> str | None:
        """Returns the password for a host: the address's own, else the first in its file that fits."""
        given = self.options.get("password") or os.environ.get("PGPASSWORD")
        user = self.options.get("user") or getpass.getuser()
        local = host.name is None or host.name.startswith("/")
        asked = (
            "localhost" if local else host.name,
            str(host.port),
            self.options.get("dbname", user),
            user,
        )
        fits = (
            password
            for *fields, password in _passwords(self.options.get("passfile"))
            if all(field in ("*", wanted) for field, wanted in zip(fields, asked, strict=True))
        )
        return given or next(fits, None)

    def number(self, option: str, default: int) -> int:
        """Returns an option that is a number."""
        return int(self.options.get(option, default))


def _parsed(url: str) -> dict[str, str]:
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise ValueError(_LOOKS)
    options = {name: unquote(found[name] or "") for name in ("user", "password", "dbname")}
    hosts = [_HOST.fullmatch(each) for each in found["hosts"].split(",")]
    if not all(hosts):
        raise ValueError(f"{_LOOKS}, with what is special in a password percent-encoded")
    options["host"] = ",".join(unquote(each["ipv6"] or each["name"]) for each in hosts if each)
    options["port"] = ",".join(each["port"] or "" for each in hosts if each)
    for pair in filter(None, (found["query"] or "").split("&")):
        name, _, value = map(unquote, pair.partition("="))
        if name == "ssl":  # Other drivers' word.
            name, value = "sslmode", "require" if value == "true" else value
        options[name] = value
    return options


def _variables() -> dict[str, str]:
    return {name: os.environ.get(variable, "") for name, variable in _VARIABLES.items()}


def _service(options: Mapping[str, str]) -> dict[str, str]:
    """Returns what a service file says of the service named: the user's own, else the system's."""
    name = options.get("service")
    if name is None:
        return {}
    own = options.get("servicefile") or str(Path("~/.pg_service.conf").expanduser())
    system = Path(os.environ.get("PGSYSCONFDIR", "/etc/postgresql-common"), "pg_service.conf")
    for path in (own, system):
        read = configparser.RawConfigParser(delimiters="=", strict=False)
        read.read(path)
        if read.has_section(name):
            return _without_empty(dict(read[name]))
    raise ValueError(f"service={name} is neither in {own} nor in {system}")


def _passwords(path: str | None) -> Iterator[list[str]]:
    """Gives what is in the password file, five fields a line; what others may read does not count."""
    file = Path(path or os.environ.get("PGPASSFILE", "~/.pgpass")).expanduser()
    if not file.is_file() or file.stat().st_mode & 0o077:
        return
    for line in file.read_text().splitlines():
        fields = [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:^|:)((?:\\.|[^:\\])*)", line)]
        if len(fields) == 5 and not line.startswith("#"):
            yield fields


def _without_empty(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value.strip(",")}


def _check(name: str, value: str) -> None:
    allowed = _VALUES.get(name)
    remedy = f": {_REMEDIES[name]}" if name in _REMEDIES else ""
    if name in _REFUSED:
        raise ValueError(f"{name} cannot be had with asyncpg{remedy or '; leave it out'}")
    if allowed is not None and value not in allowed:
        raise ValueError(f"{name}={value} cannot be had with asyncpg, only {', '.join(allowed)}{remedy}")
    if allowed is None and name not in _HONOURED:
        hint = remedy or f"; if it is a setting of the server, say options=-c%20{name}%3D…"
        raise ValueError(f"{name} is no option that psql takes{hint}")
    if name in _NUMBERS and not re.fullmatch(r"-?\d{1,9}", value):
        raise ValueError(f"{name}={value} is no whole number")


def _hosts(names: str, ports: str) -> Iterator[Host]:
    """Gives the servers: as many ports as hosts, or one for all of them."""
    hosts, numbers = names.split(","), ports.split(",")
    if len(numbers) == 1:
        numbers *= len(hosts)
    if len(numbers) != len(hosts):
        raise ValueError(f"port has {len(numbers)} numbers for {len(hosts)} hosts")
    for name, number in zip_longest(hosts, numbers):
        if number and not (number.isdecimal() and 0 < int(number) < 65_536):
            raise ValueError(f"port={number} is no port")
        yield Host(name or None, int(number or 5432))

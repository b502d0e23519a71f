"""How many sockets the process may hold: each is an open file, and the system has a limit on these."""

from __future__ import annotations

import resource

import structlog

_OTHERS = 100
"""Files for all else: Redis, logs, keys, the listener."""


def connections_for(wanted: int, unauthenticated: int) -> int:
    """Returns how many open sockets there is room for, at most `wanted`, beside so many unauthenticated ones.

    Raises the process's limit on open files as far as needed and allowed; says so if that is not enough.
    """
    needed = wanted + unauthenticated + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, needed):
        return wanted
    limit = needed if _is_enough(hard, needed) else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    room = max(1, min(wanted, limit - unauthenticated - _OTHERS))
    if room < wanted:
        structlog.get_logger(__name__).warning(
            "gateway.too_few_files", limit=limit, needed=needed, connections=room
        )
    return room


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed

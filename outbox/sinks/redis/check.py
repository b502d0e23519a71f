"""What a Redis' answers say of its rights, its memory and its clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from outbox.finding import Finding, skew
from outbox.sinks.redis.replies import describe_reply

_FULL = 0.9


def of_rights(replies: Mapping[str, Sequence[Any]]) -> Iterator[Finding]:
    """Tells, by channel, of commands that were not taken into a transaction; alike ones are told once.

    Those of no channel are what any takes.
    """
    told: set[str] = set()
    for channel, answers in replies.items():
        for refused in (answer for answer in answers if isinstance(answer, ResponseError)):
            said = describe_reply(refused)
            if said not in told:
                told.add(said)
                yield _refused(channel, refused, said)


def _refused(channel: str, refused: ResponseError, said: str) -> Finding:
    what = f"what would be sent to {channel}" if channel else "to begin a transaction"
    sentence = f"Redis refuses {what}: {said}."
    if isinstance(refused, NoPermissionError):
        return Finding(
            "error",
            sentence,
            "give its user the rights: ACL SETUSER … +multi +exec +ping +publish '&<channel>'; "
            "for the stream also +xadd +expire '~<channel>:log'",
        )
    return Finding("error", sentence, "mend that; relays go on by themselves")


def of_memory(info: Any, *, stream: bool) -> Iterator[Finding]:
    """Tells whether what is kept may be thrown out, or may not be taken; of what INFO answers."""
    if isinstance(info, ResponseError):
        yield Finding(
            "unknown",
            f"Memory was not looked at: {describe_reply(info)}.",
            "ACL SETUSER … +info, for the doctor only",
        )
        return
    said = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    most, used = int(said.get("maxmemory", 0)), int(said.get("used_memory", 0))
    policy = said.get("maxmemory_policy", "noeviction")
    if not most:
        return
    if policy != "noeviction" and stream:
        yield Finding(
            "warning",
            f"maxmemory-policy is {policy}: channels' logs may be thrown out, and who reconnects has a gap.",
            "CONFIG SET maxmemory-policy noeviction; or a Redis of its own",
        )
    if policy == "noeviction" and used > _FULL * most:
        yield Finding(
            "warning",
            f"Redis uses {used / most:.0%} of its maxmemory, and refuses writes when it is full.",
            "CONFIG SET maxmemory to more; see what fills it: redis-cli --bigkeys",
        )


def of_clock(time: Any, now: float, wrong: float) -> Iterator[Finding]:
    """Tells how far this host's clock is from the server's, by what TIME answers."""
    if not isinstance(time, ResponseError):
        seconds, micros = map(int, time)
        yield from skew("Redis", seconds + micros / 1_000_000 - now, wrong)

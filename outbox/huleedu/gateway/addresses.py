"""Whose connection it is: the address of the client, also behind proxies that are trusted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from websockets.http11 import Request

Network = IPv4Network | IPv6Network


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Reads addresses and networks, as `10.0.0.0/8`. Raises ValueError for what is neither."""
    return tuple(ip_network(text) for text in texts)


class Addresses:
    """Finds the client's address: `X-Forwarded-For` counts only as far as trusted proxies wrote it."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = networks_of(trusted)

    def trusts(self, address: str) -> bool:
        """Returns True if this is the address of a trusted proxy."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)

    def client(self, peer: str, request: Request) -> str:
        """Returns the nearest address that is no trusted proxy's; `peer` is who connected."""
        hops = ",".join(request.headers.get_all("X-Forwarded-For")).split(",")
        nearest = peer
        while hops and self.trusts(nearest):
            hop = hops.pop().strip()
            try:
                nearest = str(ip_address(hop))
            except ValueError:
                break
        return nearest

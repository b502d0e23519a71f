"""What a cluster says of its services in every container's environment: nobody means it as a setting.

For a service named `gateway` Kubernetes sets GATEWAY_SERVICE_HOST, GATEWAY_SERVICE_PORT and one more for
each named port, GATEWAY_PORT=tcp://10.96.0.7:8080, GATEWAY_PORT_8080_TCP, GATEWAY_PORT_8080_TCP_ADDR, …:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)
_PORT = re.compile(r"\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE = re.compile(r"(?P<service>\w+?)_SERVICE_(HOST|PORT(_\w+)?)")


def is_address(name: str, value: str) -> bool:
    """True if it is a service's address under a name that a port's number could have."""
    return name.endswith("_PORT") and bool(_ADDRESS.fullmatch(value))


def service_links(names: Collection[str]) -> frozenset[str]:
    """Returns those of the names that a cluster gives to what it says of a service, its address apart."""
    return frozenset(name for name in names if _PORT.fullmatch(name) or _is_of_service(name, names))


def _is_of_service(name: str, names: Collection[str]) -> bool:
    # A cluster always sets both; one alone is somebody's mistake, which is worth a warning.
    match = _SERVICE.fullmatch(name)
    both = match and {f"{match['service']}_SERVICE_HOST", f"{match['service']}_SERVICE_PORT"}
    return both is not None and both <= set(names)

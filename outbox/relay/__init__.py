"""The relay: delivers what the outbox holds.

`Relay` is all that others may use; nobody but these modules looks inside.
"""

from outbox.relay.relay import Relay

__all__ = ["Relay"]

"""The relay's probes and metrics over HTTP, in the relay's own loop: `/livez`, `/readyz`, `/metrics`.

Needs the extra `web`. Asks the relay only for `health()`, and the database for what is in the queue.
"""

from outbox.web.readiness import Watched
from outbox.web.server import serving

__all__ = ["Watched", "serving"]

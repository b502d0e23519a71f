"""What the gateway counts. No user or message is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

CONNECTIONS = Gauge("websocket_connections", "Open sockets.", registry=REGISTRY)
USERS = Gauge("websocket_subscriptions", "Users with a socket here, so subscriptions.", registry=REGISTRY)
OPENED = Counter("websocket_opened_total", "Sockets opened.", registry=REGISTRY)
CLOSED = Counter(
    "websocket_closed_total",
    "Sockets closed by us with this code, or by the client (code is client).",
    ["code"],
    registry=REGISTRY,
)
REFUSED = Counter(
    "websocket_refused_total", "Sockets closed with this code right away.", ["code"], registry=REGISTRY
)
UNAUTHENTICATED = Gauge(
    "websocket_unauthenticated", "Connections that nobody has been let in on, or not yet.", registry=REGISTRY
)
CROWDED_OUT = Counter(
    "websocket_crowded_out_total",
    "Such connections cut off because there were too many, of one address or in all.",
    ["scope"],
    registry=REGISTRY,
)
ORIGINS_REFUSED = Counter(
    "websocket_origins_refused_total", "Handshakes answered 403 for their Origin.", registry=REGISTRY
)
RENEWALS = Counter(
    "websocket_renewals_total",
    "Tokens brought on an open socket: accepted, or why not.",
    ["outcome"],
    registry=REGISTRY,
)
RECEIVED = Counter("websocket_received_total", "Messages that Redis delivered.", registry=REGISTRY)
SENT = Counter("websocket_sent_total", "Messages written to sockets.", registry=REGISTRY)
CAUGHT_UP = Counter(
    "websocket_caught_up_total",
    "Messages that a reconnect brought, because they had been missed.",
    registry=REGISTRY,
)
FOLDED = Counter(
    "websocket_folded_total", "Messages folded into a resync_required by the rate limit.", registry=REGISTRY
)
RESYNCS = Counter(
    "websocket_resyncs_total", "Sockets told resync_required, by cause.", ["cause"], registry=REGISTRY
)
DELAY = Histogram(
    "websocket_send_delay_seconds",
    "From a message's arrival from Redis to its being written to a socket.",
    buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
    registry=REGISTRY,
)
REDIS_UP = Gauge("websocket_redis_up", "1 while the subscription connection lives.", registry=REGISTRY)
REDIS_LOST = Counter("websocket_redis_lost_total", "Times that connection was lost.", registry=REGISTRY)

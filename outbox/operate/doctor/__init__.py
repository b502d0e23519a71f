"""Is all well, and what is not: the schema, the database, its sessions, relays, lanes and sinks.

It knows no broker: each sink examines its own.
"""

from outbox.operate.doctor.examination import Report, checks, examine

__all__ = ["Report", "checks", "examine"]

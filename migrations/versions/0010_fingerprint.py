"""What is parked tells by its fingerprint for which cause, whoever parks it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from outbox.migrate import steps

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None

# What has a digit in it differs from row to row: ids, sizes, offsets, times, addresses.
FINGERPRINT = """
CREATE FUNCTION %1$I.outbox_fingerprint() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    NEW.fingerprint := hashtextextended(concat_ws(
        chr(10), NEW.sink, NEW.destination_hash, (SELECT o.type FROM %1$I.outbox o WHERE o.id = NEW.id),
        regexp_replace(left(NEW.last_error, 1000), '[[:alnum:]_-]*[0-9][[:alnum:]_-]*', '#', 'g')), 0);
    RETURN NEW;
END
$function$
"""

# Of an UPDATE alone: what is written, and what is delivered, pays nothing for it.
TRIGGER = """
CREATE TRIGGER outbox_fingerprint BEFORE UPDATE ON outbox_queue
    FOR EACH ROW WHEN (NEW.parked_at IS NOT NULL) EXECUTE FUNCTION outbox_fingerprint()
"""

COMMENT = "Tells why a parked delivery is parked: equal for the same error but for what has digits in it, to one destination, of one type."


def upgrade() -> None:
    op.add_column(
        "outbox_queue",
        sa.Column(
            "fingerprint",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("0"),
            comment="The cause of its parking, for which it is one of a group. Changes when it is parked.",
        ),
    )
    steps.create_in_schema(FINGERPRINT)
    op.execute(f"COMMENT ON FUNCTION outbox_fingerprint() IS '{COMMENT}'")
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER outbox_fingerprint ON outbox_queue")
    op.execute("DROP FUNCTION outbox_fingerprint()")
    op.drop_column("outbox_queue", "fingerprint")

"""Acts upon many deliveries are stored and carried out by relays; who did what is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from outbox.migrate import steps

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None

# The only way to ask: whoever may write this table acts with the rights of the relays.
ASK = """
CREATE FUNCTION %1$I.outbox_ask(
    act text, selection jsonb, options jsonb, up_to bigint, ids bigint[], expected bigint, before jsonb,
    os_user text, login text, reason text
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    operation bigint;
BEGIN
    INSERT INTO %1$I.outbox_operations (act, selection, options, up_to, ids, expected, reached, replay_id, asked_by)
    VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $1 = 'park' THEN $4 + 1 ELSE 0 END,
            CASE WHEN $1 = 'replay' THEN gen_random_uuid() END, session_user)
    RETURNING id INTO operation;
    INSERT INTO %1$I.outbox_acts (act, phase, operation, role, os_user, login, reason, selection, before)
    VALUES ($1, 'asked', operation, session_user, $8, $9, $10, $2 || $3, $7);
    RETURN operation;
END
$function$
"""

# It waits for the batch that is under way.
CANCEL = """
CREATE FUNCTION %1$I.outbox_cancel(operation bigint, os_user text, login text, reason text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    UPDATE %1$I.outbox_operations SET ended_at = clock_timestamp(), cancelled = true, ids = NULL
    WHERE id = $1 AND ended_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO %1$I.outbox_acts (act, phase, operation, role, os_user, login, reason)
    VALUES ('cancel', 'done', $1, session_user, $2, $3, $4);
    RETURN true;
END
$function$
"""

RECORD = """
CREATE FUNCTION %1$I.outbox_record(
    act text, selection jsonb, before jsonb, after jsonb, os_user text, login text, reason text
) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
    INSERT INTO %1$I.outbox_acts (act, phase, role, os_user, login, reason, selection, before, after)
    VALUES ($1, 'done', session_user, $5, $6, $7, $2, $3, $4)
    RETURNING id
$function$
"""

ENDED = """
CREATE FUNCTION %1$I.outbox_operation_ended() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    INSERT INTO %1$I.outbox_acts (act, phase, operation, role, after)
    VALUES (NEW.act, CASE WHEN NEW.cancelled THEN 'cancelled' ELSE 'done' END, NEW.id, session_user,
            jsonb_build_object('rows', NEW.rows, 'left_out', NEW.left_out, 'busy', NEW.busy,
                               'uncertain', NEW.uncertain));
    RETURN NULL;
END
$function$
"""

KEEP = """
CREATE FUNCTION outbox_keep_acts() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RAISE EXCEPTION 'outbox_acts tells what was done: nothing of it is changed or deleted'
        USING ERRCODE = 'insufficient_privilege';
END
$function$
"""

TRIGGERS = (
    "CREATE TRIGGER outbox_operation_ended AFTER UPDATE ON outbox_operations FOR EACH ROW"
    " WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION outbox_operation_ended()",
    "CREATE TRIGGER outbox_keep_acts BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox_acts"
    " FOR EACH STATEMENT EXECUTE FUNCTION outbox_keep_acts()",
)

FUNCTIONS = {
    "outbox_ask(text, jsonb, jsonb, bigint, bigint[], bigint, jsonb, text, text, text)": "Asks for an act upon deliveries, in the name of who is logged in; answers the operation.",
    "outbox_cancel(bigint, text, text, text)": "Ends an operation where it is; false: it has ended, or there is none.",
    "outbox_record(text, jsonb, jsonb, jsonb, text, text, text)": "Records an act that is done at once, in the name of who is logged in.",
    "outbox_operation_ended()": "Records what came of an operation.",
    "outbox_keep_acts()": "Refuses to change what was done.",
}


def upgrade() -> None:
    create_operations()
    create_acts()
    for statement in (ASK, CANCEL, RECORD, ENDED):
        steps.create_in_schema(statement)
    op.execute(KEEP)
    for function, comment in FUNCTIONS.items():
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"COMMENT ON FUNCTION {function} IS '{comment}'")
    for statement in TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("outbox_acts")
    op.drop_table("outbox_operations")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")


def create_operations() -> None:
    op.create_table(
        "outbox_operations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Names it."),
        sa.Column("act", sa.Text(), nullable=False, comment="retry, skip, park or replay."),
        sa.Column("selection", JSONB(), nullable=False, comment="Upon which deliveries: what was asked for."),
        sa.Column("options", JSONB(), nullable=False, comment="How."),
        sa.Column(
            "up_to", sa.BigInteger(), nullable=False, comment="The newest id when it was asked: none above."
        ),
        sa.Column(
            "ids",
            ARRAY(sa.BigInteger()),
            nullable=True,
            comment="Where they were few, just these, until it ends; null: all that match.",
        ),
        sa.Column(
            "expected", sa.BigInteger(), nullable=True, comment="How many matched; null: too many to count."
        ),
        sa.Column("replay_id", sa.UUID(), nullable=True, comment="Of a replay: that of the rows it writes."),
        sa.Column(
            "asked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was asked.",
        ),
        sa.Column("asked_by", sa.Text(), nullable=False, comment="As which role of the database."),
        sa.Column(
            "sink",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="With reached: how far it is. Both move with each batch, in its transaction.",
        ),
        sa.Column(
            "reached", sa.BigInteger(), nullable=False, comment="The last id that was looked at. See sink."
        ),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment=comment)
            for name, comment in (
                ("rows", "Deliveries changed, or written again, so far."),
                (
                    "left_out",
                    "Left alone so far: an earlier one of their key is parked, or they cannot be written.",
                ),
                ("busy", "Left alone so far: somebody else was at them."),
                ("uncertain", "Changed ones that may have arrived all the same, so far."),
            )
        ),
        sa.Column(
            "next_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="No batch before that. Moved by each.",
        ),
        sa.Column(
            "trouble", sa.Text(), nullable=True, comment="Why the last batch failed; null: it did not."
        ),
        sa.Column(
            "ended_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended; null: it goes on."
        ),
        sa.Column(
            "cancelled",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether somebody ended it.",
        ),
        sa.CheckConstraint(
            "act IN ('retry', 'skip', 'park', 'replay')", name=op.f("outbox_operations_act_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_operations_pkey")),
        comment="Acts upon many deliveries, which relays carry out batch by batch.",
    )
    op.create_index(
        op.f("outbox_operations_open"),
        "outbox_operations",
        ["id"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def create_acts() -> None:
    op.create_table(
        "outbox_acts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The order."),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When.",
        ),
        sa.Column(
            "act", sa.Text(), nullable=False, comment="What: retry, skip, park, replay, pause and so on."
        ),
        sa.Column("phase", sa.Text(), nullable=False, comment="asked; or done, cancelled: what came of it."),
        sa.Column(
            "operation", sa.BigInteger(), nullable=True, comment="The operation; null: it was done at once."
        ),
        sa.Column("role", sa.Text(), nullable=False, comment="Who: the role of the database that logged in."),
        sa.Column("os_user", sa.Text(), nullable=True, comment="Who: on the machine, as that says."),
        sa.Column("login", sa.Text(), nullable=True, comment="Who: on the page, as that says."),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why, in the words of who did it."),
        sa.Column("selection", JSONB(), nullable=True, comment="Upon what, and how."),
        sa.Column("before", JSONB(), nullable=True, comment="How that was."),
        sa.Column("after", JSONB(), nullable=True, comment="What came of it."),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_acts_pkey")),
        comment="What operators did. Nobody changes it; its functions write it.",
    )
    op.create_index(op.f("outbox_acts_operation"), "outbox_acts", ["operation"])

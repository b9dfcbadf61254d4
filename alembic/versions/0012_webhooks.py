"""Webhooks: whom to tell of what, what there is to tell, and how far each is told."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE webhook (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID,
        url TEXT NOT NULL,
        events TEXT[] NOT NULL,
        description TEXT DEFAULT '' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        secret_rotated_at TIMESTAMP WITH TIME ZONE,
        disabled_at TIMESTAMP WITH TIME ZONE,
        disabled_reason TEXT,
        CONSTRAINT webhook_pkey PRIMARY KEY (id),
        CONSTRAINT webhook_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organization (id),
        CONSTRAINT webhook_url_check CHECK (url <> '' AND length(url) <= 2000),
        CONSTRAINT webhook_events_check CHECK (cardinality(events) BETWEEN 1 AND 20),
        CONSTRAINT webhook_disabled_check CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
    )
    """,
    "COMMENT ON COLUMN webhook.organization_id IS 'null: hears of every organization'",
    "CREATE INDEX webhook_organization_id_idx ON webhook (organization_id)",
    """
    CREATE TABLE webhook_secret (
        webhook_id UUID NOT NULL,
        secret_nonce BYTEA NOT NULL,
        pepper_version SMALLINT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT webhook_secret_pkey PRIMARY KEY (webhook_id, secret_nonce),
        CONSTRAINT webhook_secret_webhook_id_fkey
            FOREIGN KEY (webhook_id) REFERENCES webhook (id) ON DELETE CASCADE,
        CONSTRAINT webhook_secret_secret_nonce_check CHECK (length(secret_nonce) = 32)
    )
    """,
    "COMMENT ON COLUMN webhook_secret.secret_nonce IS 'the secret is an HMAC of it under the pepper; it is not kept'",
    "COMMENT ON COLUMN webhook_secret.expires_at IS 'until when it signs beside its successor; null: the current one'",
    """
    CREATE TABLE webhook_health (
        webhook_id UUID NOT NULL,
        failures INTEGER DEFAULT 0 NOT NULL,
        failing_since TIMESTAMP WITH TIME ZONE,
        resume_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT webhook_health_pkey PRIMARY KEY (webhook_id),
        CONSTRAINT webhook_health_webhook_id_fkey
            FOREIGN KEY (webhook_id) REFERENCES webhook (id) ON DELETE CASCADE
    )
    """,
    "COMMENT ON COLUMN webhook_health.failures IS 'attempts in a row that failed'",
    "COMMENT ON COLUMN webhook_health.resume_at IS 'nothing is sent there before'",
    """
    CREATE TABLE webhook_event (
        id UUID NOT NULL,
        organization_id UUID,
        kind TEXT NOT NULL,
        payload JSONB NOT NULL,
        once TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT webhook_event_pkey PRIMARY KEY (id),
        CONSTRAINT webhook_event_once_key UNIQUE (once),
        CONSTRAINT webhook_event_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organization (id)
    )
    """,
    "COMMENT ON COLUMN webhook_event.once IS 'what is noticed by several is told once under this name'",
    "CREATE INDEX webhook_event_organization_id_idx ON webhook_event (organization_id)",
    "CREATE INDEX webhook_event_created_at_idx ON webhook_event (created_at)",
    """
    CREATE TABLE webhook_delivery (
        event_id UUID NOT NULL,
        webhook_id UUID NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        next_attempt_at TIMESTAMP WITH TIME ZONE DEFAULT now(),
        delivered_at TIMESTAMP WITH TIME ZONE,
        given_up_at TIMESTAMP WITH TIME ZONE,
        last_status SMALLINT,
        last_error TEXT,
        CONSTRAINT webhook_delivery_pkey PRIMARY KEY (event_id, webhook_id),
        CONSTRAINT webhook_delivery_event_id_fkey
            FOREIGN KEY (event_id) REFERENCES webhook_event (id) ON DELETE CASCADE,
        CONSTRAINT webhook_delivery_webhook_id_fkey
            FOREIGN KEY (webhook_id) REFERENCES webhook (id) ON DELETE CASCADE,
        CONSTRAINT webhook_delivery_state_check CHECK (
            num_nonnulls(next_attempt_at, delivered_at, given_up_at) = 1)
    )
    """,
    "COMMENT ON COLUMN webhook_delivery.created_at IS 'when it was last put into the queue'",
    """
    CREATE INDEX webhook_delivery_due_idx ON webhook_delivery (webhook_id, next_attempt_at)
        WHERE next_attempt_at IS NOT NULL
    """,
    """
    CREATE INDEX webhook_delivery_next_attempt_at_idx ON webhook_delivery (next_attempt_at)
        WHERE next_attempt_at IS NOT NULL
    """,
    "CREATE INDEX webhook_delivery_webhook_id_idx ON webhook_delivery (webhook_id, event_id)",
    "CREATE INDEX webhook_delivery_created_at_idx ON webhook_delivery (created_at)",
    """
    CREATE TABLE webhook_budget_change (
        rule_id UUID NOT NULL,
        organization_id UUID NOT NULL,
        CONSTRAINT webhook_budget_change_pkey PRIMARY KEY (rule_id)
    )
    """,
    "CREATE INDEX webhook_budget_change_organization_id_idx ON webhook_budget_change (organization_id)",
    """
    CREATE TABLE webhook_watch (
        only_row BOOLEAN DEFAULT true NOT NULL,
        looked_until xid8,
        CONSTRAINT webhook_watch_pkey PRIMARY KEY (only_row),
        CONSTRAINT webhook_watch_only_row_check CHECK (only_row)
    )
    """,
    """
    COMMENT ON COLUMN webhook_watch.looked_until IS
        'what transactions before it have spent was held against budgets; null: nobody wants to know'
    """,
    "INSERT INTO webhook_watch DEFAULT VALUES",
)

# Whoever changes a budget, the leader looks whether it is past a threshold now, with nothing being spent.
NOTE_CHANGE = """
CREATE FUNCTION penstock_note_budget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook) THEN
        INSERT INTO webhook_budget_change (rule_id, organization_id) VALUES (NEW.id, NEW.organization_id)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$
"""

PIN_SCHEMA = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION penstock_note_budget() SET search_path = %I, pg_temp', current_schema());
END
$$
"""


def _budgets(row: str) -> str:
    return f"{row}.budget_day_pico_usd, {row}.budget_week_pico_usd, {row}.budget_month_pico_usd"


def upgrade() -> None:
    for statement in (*TABLES, NOTE_CHANGE, PIN_SCHEMA):
        op.execute(statement)
    for event, condition in (
        ("insert", f"num_nonnulls({_budgets('NEW')}) > 0"),
        ("update", f"({_budgets('OLD')}) IS DISTINCT FROM ({_budgets('NEW')})"),
    ):
        op.execute(
            f"CREATE TRIGGER penstock_note_budget_{event} AFTER {event.upper()} ON limit_rule"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION penstock_note_budget()"
        )
    op.execute(
        "CREATE TRIGGER penstock_audit AFTER INSERT OR UPDATE OR DELETE ON webhook"
        " FOR EACH ROW EXECUTE FUNCTION penstock_audit('webhook')"
    )


def downgrade() -> None:
    for statement in (
        "DROP TRIGGER penstock_note_budget_insert ON limit_rule",
        "DROP TRIGGER penstock_note_budget_update ON limit_rule",
        "DROP FUNCTION penstock_note_budget",
        """
        DROP TABLE webhook_watch, webhook_budget_change, webhook_delivery, webhook_event, webhook_health,
            webhook_secret, webhook
        """,
    ):
        op.execute(statement)

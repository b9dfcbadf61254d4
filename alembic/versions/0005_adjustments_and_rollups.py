"""The ledger can be corrected, summed up and watched: adjustments, hourly and daily rollups, checkpoints.

Events and adjustments carry the transaction that wrote them, so that a rollup knows which rows it has seen: what is
below the watermark is in the rollup, what is not is the tail that reports add.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A constant default first (no table is rewritten; 3 is the oldest transaction there is), then the one for new rows.
EVENTS = (
    "ALTER TABLE usage_event ADD COLUMN reaped BOOLEAN DEFAULT false NOT NULL",
    "ALTER TABLE usage_event ADD COLUMN ingest_xid xid8 DEFAULT '3'::xid8 NOT NULL",
    "ALTER TABLE usage_event ALTER COLUMN ingest_xid SET DEFAULT pg_current_xact_id()",
    "CREATE INDEX usage_event_ingest_xid_idx ON usage_event (ingest_xid)",
    "COMMENT ON COLUMN usage_event.reaped IS 'closed for a replica that did not do it itself'",
    "COMMENT ON COLUMN usage_event.ingest_xid IS 'the transaction that wrote the row'",
)

TABLES = (
    """
    CREATE TABLE usage_adjustment (
        event_id UUID NOT NULL,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        batch_id UUID NOT NULL,
        reason TEXT NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        key_id UUID NOT NULL,
        model TEXT NOT NULL,
        served_model TEXT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL,
        price_id BIGINT,
        cost_pico_usd NUMERIC(38, 0) NOT NULL,
        ingested_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        ingest_xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
        CONSTRAINT usage_adjustment_pkey PRIMARY KEY (event_id, opened_at, batch_id),
        CONSTRAINT usage_adjustment_reason_check CHECK (reason IN ('late_close', 'rerate'))
    )
     PARTITION BY RANGE (opened_at)
    """,
    """
    CREATE TABLE usage_hour (
        hour TIMESTAMP WITH TIME ZONE NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        key_id UUID NOT NULL,
        model TEXT NOT NULL,
        served_model TEXT NOT NULL,
        engine TEXT,
        requests BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        prompt_tokens NUMERIC(38, 0) NOT NULL,
        cached_tokens NUMERIC(38, 0) NOT NULL,
        completion_tokens NUMERIC(38, 0) NOT NULL,
        reasoning_tokens NUMERIC(38, 0) NOT NULL,
        cost_pico_usd NUMERIC(38, 0) NOT NULL
    )
    """,
    """
    CREATE TABLE usage_day (
        day DATE NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        key_id UUID NOT NULL,
        model TEXT NOT NULL,
        served_model TEXT NOT NULL,
        engine TEXT,
        requests BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        prompt_tokens NUMERIC(38, 0) NOT NULL,
        cached_tokens NUMERIC(38, 0) NOT NULL,
        completion_tokens NUMERIC(38, 0) NOT NULL,
        reasoning_tokens NUMERIC(38, 0) NOT NULL,
        cost_pico_usd NUMERIC(38, 0) NOT NULL
    )
    """,
    """
    CREATE TABLE rollup_state (
        only_row BOOLEAN DEFAULT true NOT NULL,
        watermark xid8 DEFAULT '0'::xid8 NOT NULL,
        rolled_up_at TIMESTAMP WITH TIME ZONE,
        retired_before DATE,
        CONSTRAINT rollup_state_pkey PRIMARY KEY (only_row),
        CONSTRAINT rollup_state_only_row_check CHECK (only_row)
    )
    """,
    """
    CREATE TABLE replica_checkpoint (
        boot_id UUID NOT NULL,
        taken_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        live JSONB NOT NULL,
        counters JSONB NOT NULL,
        CONSTRAINT replica_checkpoint_pkey PRIMARY KEY (boot_id)
    )
    """,
    "INSERT INTO rollup_state DEFAULT VALUES",
)

INDEXES = (
    "CREATE INDEX usage_adjustment_organization_id_idx ON usage_adjustment (organization_id, opened_at)",
    "CREATE INDEX usage_adjustment_ingest_xid_idx ON usage_adjustment (ingest_xid)",
    "CREATE INDEX usage_hour_hour_idx ON usage_hour (hour)",
    "CREATE INDEX usage_hour_organization_id_idx ON usage_hour (organization_id, hour)",
    "CREATE INDEX usage_day_day_idx ON usage_day (day)",
    "CREATE INDEX usage_day_organization_id_idx ON usage_day (organization_id, day)",
)

COMMENTS = (
    "COMMENT ON COLUMN usage_adjustment.batch_id IS 'zero for a late close, else the run of a rerate: repeatable'",
    "COMMENT ON COLUMN usage_adjustment.cost_pico_usd IS 'added to the event''s own, as are tokens; may be negative'",
    "COMMENT ON COLUMN rollup_state.watermark IS 'rows of transactions below it are in the rollups, others are not'",
    "COMMENT ON COLUMN rollup_state.retired_before IS 'events of earlier days are gone: their hours stay as they are'",
    "COMMENT ON COLUMN replica_checkpoint.live IS 'of each request in flight, what it has used so far'",
    "COMMENT ON COLUMN replica_checkpoint.counters IS 'what this replica has settled since its start'",
)

# As before, with one parent more. Days are UTC days whatever the server's time zone.
MAKE_PARTITIONS = """
CREATE OR REPLACE FUNCTION penstock_make_partitions(from_day date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    home text := current_schema();
    parent text;
    child text;
    day date;
    made integer := 0;
BEGIN
    IF days NOT BETWEEN 1 AND 400 THEN
        RAISE EXCEPTION 'days must be between 1 and 400, not %', days;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('penstock_make_partitions'));
    FOR offset_days IN 0 .. days - 1 LOOP
        day := from_day + offset_days;
        FOREACH parent IN ARRAY ARRAY['usage_open', 'usage_event', 'usage_adjustment'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF to_regclass(format('%I.%I', home, child)) IS NULL THEN
                EXECUTE format(
                    'CREATE TABLE %I.%I PARTITION OF %I.%I FOR VALUES FROM (%L) TO (%L)', home, child, home, parent,
                    day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$
"""

# Replacing a function drops its settings: pin the schema again, as the migration that made it did.
PIN_SCHEMA = """
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION penstock_make_partitions(date, integer) SET search_path = %I, pg_temp', current_schema());
END
$$
"""

# Days that have events already need a partition for what corrects them.
CATCH_UP = """
SELECT penstock_make_partitions(day, 1) FROM (
    SELECT DISTINCT to_date(right(c.relname::text, 8), 'YYYYMMDD') AS day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'usage_event'::regclass) AS days
"""


def upgrade() -> None:
    for statement in (*EVENTS, *TABLES, *INDEXES, *COMMENTS, MAKE_PARTITIONS, PIN_SCHEMA, CATCH_UP):
        op.execute(statement)

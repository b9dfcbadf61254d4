"""The ledger is rolled up by a function that runs as the schema's owner.

The gateway's role needs no right to change the rollups: how sums get into them stands here.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# All that was ever used: what counters in Prometheus read, so that none falls when the ledger is retired. What
# corrections took back stands beside what was charged.
TABLES = (
    """
    CREATE TABLE usage_total (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        served_model TEXT NOT NULL,
        requests NUMERIC(38, 0) NOT NULL,
        charged_prompt_tokens NUMERIC(38, 0) NOT NULL,
        charged_cached_tokens NUMERIC(38, 0) NOT NULL,
        charged_completion_tokens NUMERIC(38, 0) NOT NULL,
        charged_reasoning_tokens NUMERIC(38, 0) NOT NULL,
        charged_cost_pico_usd NUMERIC(38, 0) NOT NULL,
        credited_prompt_tokens NUMERIC(38, 0) NOT NULL,
        credited_cached_tokens NUMERIC(38, 0) NOT NULL,
        credited_completion_tokens NUMERIC(38, 0) NOT NULL,
        credited_reasoning_tokens NUMERIC(38, 0) NOT NULL,
        credited_cost_pico_usd NUMERIC(38, 0) NOT NULL,
        CONSTRAINT usage_total_pkey PRIMARY KEY (id),
        CONSTRAINT usage_total_organization_id_team_id_served_model_key
            UNIQUE (organization_id, team_id, served_model)
    )
    """,
    """
    COMMENT ON COLUMN usage_total.credited_cost_pico_usd IS
        'taken back by adjustments: what is due is charged - credited'
    """,
    "ALTER TABLE rollup_state ADD COLUMN hours_retired_before DATE",
    "COMMENT ON COLUMN rollup_state.hours_retired_before IS 'of earlier days there are no hours any more'",
)

# One row for each thing that is summed up, so that sums can be added to it.
INDEXES = (
    "DROP INDEX usage_hour_organization_id_idx",
    "DROP INDEX usage_day_organization_id_idx",
    """
    CREATE UNIQUE INDEX usage_hour_key ON usage_hour (
        organization_id, hour, key_id, team_id, user_id, model, served_model, engine) NULLS NOT DISTINCT
    """,
    """
    CREATE UNIQUE INDEX usage_day_key ON usage_day (
        organization_id, day, key_id, team_id, user_id, model, served_model, engine) NULLS NOT DISTINCT
    """,
    "CREATE INDEX usage_open_organization_id_idx ON usage_open (organization_id, deadline_at)",
)

# What events and adjustments of a range of transactions add to the sums, each row by itself.
_PARTS = """
    SELECT e.opened_at, e.organization_id, e.team_id, e.user_id, e.key_id, e.model, e.served_model, e.engine,
           1::bigint AS requests, (e.coverage = 'estimated')::integer::bigint AS estimated, e.prompt_tokens,
           e.cached_tokens, e.completion_tokens, e.reasoning_tokens, e.cost_pico_usd
      FROM usage_event e WHERE e.ingest_xid >= {first} AND e.ingest_xid < {below} {events}
    UNION ALL
    SELECT a.opened_at, a.organization_id, a.team_id, a.user_id, a.key_id, a.model, a.served_model,
           (SELECT e.engine FROM usage_event e
             WHERE e.event_id = a.event_id AND e.opened_at = a.opened_at {events}),
           0::bigint, 0::bigint, a.prompt_tokens, a.cached_tokens, a.completion_tokens, a.reasoning_tokens,
           a.cost_pico_usd
      FROM usage_adjustment a WHERE a.ingest_xid >= {first} AND a.ingest_xid < {below} {adjustments}
"""

# The rows of the last seconds are few among millions: without statistics Postgres would think them a third of all and
# read every partition whole. Planned for each call, so that partitions of other days are not even opened. In the
# snapshot of the statement that calls it.
PARTS = f"""
CREATE FUNCTION penstock_usage_parts(
    from_xid xid8, below_xid xid8, since timestamp with time zone, until timestamp with time zone
) RETURNS TABLE (
    opened_at timestamp with time zone, organization_id uuid, team_id uuid, user_id uuid, key_id uuid, model text,
    served_model text, engine text, requests bigint, estimated bigint, prompt_tokens bigint, cached_tokens bigint,
    completion_tokens bigint, reasoning_tokens bigint, cost_pico_usd numeric
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan SET jit = off AS $$
BEGIN
    RETURN QUERY {
    _PARTS.format(
        first="from_xid",
        below="below_xid",
        events="AND e.opened_at >= since AND e.opened_at < until",
        adjustments="AND a.opened_at >= since AND a.opened_at < until",
    )
};
END
$$
"""

_KEY = "key_id, team_id, user_id, model, served_model, engine"
_SUMMED = (
    "requests",
    "estimated",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_pico_usd",
)
_AMOUNTS = _SUMMED[2:]


def _added(table: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} = {table}.{column} + excluded.{column}" for column in columns)


def _rolled(table: str, period: str, expression: str) -> str:
    """Return the statement that adds what is new to the rows of one rollup."""
    sums = ", ".join(f"sum({column})" for column in _SUMMED)
    return f"""
        INSERT INTO {table} AS rolled (organization_id, {period}, {_KEY}, {", ".join(_SUMMED)})
        SELECT organization_id, {expression}, {_KEY}, {sums} FROM part GROUP BY 1, 2, {_KEY}
        ON CONFLICT (organization_id, {period}, {_KEY}) DO UPDATE SET {_added("rolled", _SUMMED)}
    """  # noqa: S608 - names of this module alone


def _totals() -> str:
    columns = ("requests", *(f"charged_{name}" for name in _AMOUNTS), *(f"credited_{name}" for name in _AMOUNTS))
    charged = ", ".join(f"sum(greatest({name}, 0))" for name in _AMOUNTS)
    credited = ", ".join(f"sum(-least({name}, 0))" for name in _AMOUNTS)
    return f"""
        INSERT INTO usage_total AS rolled (organization_id, team_id, served_model, {", ".join(columns)})
        SELECT organization_id, team_id, served_model, sum(requests), {charged}, {credited} FROM part GROUP BY 1, 2, 3
        ON CONFLICT (organization_id, team_id, served_model) DO UPDATE SET {_added("rolled", columns)}
    """  # noqa: S608 - names of this module alone


# The watermark is the oldest transaction that still runs, so every row below it is there to be seen, now and for ever
# after. Rows between the last watermark and this one are added, and the watermark moves with them in one transaction:
# whoever adds what is not below the watermark to the rollups has everything once, in any snapshot. Adding needs no row
# of before, so an hour whose events are dropped is treated as any other, and a year-old record costs no more than a new
# one. At most `rows_max` rows and the rest of the last one's transaction are added at once, whatever waits. Any day may
# have got a row, so every partition is asked; a session plans that once.
ROLL_UP = f"""
CREATE FUNCTION penstock_roll_up(rows_max integer, OUT rolled_up bigint, OUT behind boolean)
LANGUAGE plpgsql SECURITY DEFINER SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    seen xid8;
    below xid8;
    last xid8;
BEGIN
    IF rows_max NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'rows_max must be between 1 and 1000000, not %', rows_max;
    END IF;
    SELECT watermark INTO STRICT seen FROM rollup_state FOR UPDATE;
    IF seen > pg_snapshot_xmax(pg_current_snapshot()) THEN
        rolled_up := penstock_adopt_restored(seen, rows_max);
        behind := true;
        RETURN;
    END IF;
    below := greatest(pg_snapshot_xmin(pg_current_snapshot()), seen);
    SELECT ingest_xid INTO last FROM (
        (SELECT ingest_xid FROM usage_event WHERE ingest_xid >= seen AND ingest_xid < below
          ORDER BY ingest_xid LIMIT rows_max)
        UNION ALL
        (SELECT ingest_xid FROM usage_adjustment WHERE ingest_xid >= seen AND ingest_xid < below
          ORDER BY ingest_xid LIMIT rows_max)
    ) AS dirty ORDER BY ingest_xid OFFSET rows_max - 1 LIMIT 1;
    behind := last IS NOT NULL;
    IF behind THEN
        below := (last::text::numeric + 1)::text::xid8;
    END IF;
    WITH part AS MATERIALIZED ({_PARTS.format(first="seen", below="below", events="", adjustments="")}
    ), hours AS ({_rolled("usage_hour", "hour", "date_trunc('hour', opened_at, 'UTC')")}
    ), days AS ({_rolled("usage_day", "day", "(opened_at AT TIME ZONE 'UTC')::date")}
    ), totals AS ({_totals()})
    SELECT count(*) INTO rolled_up FROM part;
    UPDATE rollup_state SET watermark = below, rolled_up_at = clock_timestamp();
END
$$
"""  # noqa: S608 - statements of this module alone

# A watermark that is yet to come is another server's: the database was restored into a server that has counted fewer
# transactions. What is in the rollups (seen, and there when they were made) becomes the oldest transaction's; then what
# is not becomes this one's, and the watermark goes between the two. The rollups stay as they are: they were restored
# with the rows. Returns how many rows were taken over; the watermark stays until no row is left.
ADOPT_RESTORED = """
CREATE FUNCTION penstock_adopt_restored(seen xid8, rows_max integer) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    at timestamp with time zone;
    parent text;
    adopted bigint := 0;
    more bigint;
BEGIN
    SELECT coalesce(rolled_up_at, 'infinity') INTO STRICT at FROM rollup_state;
    FOREACH parent IN ARRAY ARRAY['usage_event', 'usage_adjustment'] LOOP
        EXECUTE format('UPDATE %I SET ingest_xid = ''3'' WHERE (event_id, opened_at) IN (SELECT event_id, opened_at'
            ' FROM %I WHERE ingest_xid > ''3'' AND ingest_xid < $1 AND ingested_at <= $2 LIMIT $3)', parent, parent)
            USING seen, at, rows_max;
        GET DIAGNOSTICS more = ROW_COUNT;
        adopted := adopted + more;
    END LOOP;
    IF adopted = 0 THEN
        UPDATE usage_event SET ingest_xid = pg_current_xact_id() WHERE ingest_xid > '3';
        UPDATE usage_adjustment SET ingest_xid = pg_current_xact_id() WHERE ingest_xid > '3';
        UPDATE rollup_state SET watermark = '4';
    END IF;
    RETURN adopted;
END
$$
"""

FUNCTIONS = (
    "penstock_usage_parts(xid8, xid8, timestamp with time zone, timestamp with time zone)",
    "penstock_adopt_restored(xid8, integer)",
    "penstock_roll_up(integer)",
)


def _pin(function: str) -> str:
    """Return what lets a function find this schema's tables alone, whatever the caller made for itself."""
    return f"""
        DO $$
        BEGIN
            EXECUTE format('ALTER FUNCTION {function} SET search_path = %I, pg_temp', current_schema());
        END
        $$
    """


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, PARTS, ADOPT_RESTORED, ROLL_UP):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(_pin(function))
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")

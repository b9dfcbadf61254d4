"""The ledger is summed up by session, too: for reports by session and for budgets of sessions.

`usage_session` has for each hour what `usage_hour` has, cut by session; requests without one are in it under no
session, so both have the same sums. Kept by the same function below the same watermark, and dropped with the hours.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE usage_session (
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    session TEXT,
    opened_first TIMESTAMP WITH TIME ZONE,
    opened_last TIMESTAMP WITH TIME ZONE,
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
"""

ABOUT_TABLE = (
    "COMMENT ON COLUMN usage_session.session IS 'at most 128 characters; null: requests that told none'",
    "COMMENT ON COLUMN usage_session.opened_first IS 'when its first request of the hour came; null without a session'",
    "CREATE INDEX usage_session_hour_idx ON usage_session (hour)",
    "CREATE INDEX usage_session_organization_id_idx ON usage_session (organization_id, hour)",
    """
    CREATE UNIQUE INDEX usage_session_key ON usage_session (
        organization_id, session, hour, key_id, team_id, user_id, model, served_model, engine) NULLS NOT DISTINCT
    """,
)

# As before, with the session: adjustments have their event's.
_PARTS = """
    SELECT e.opened_at, e.organization_id, e.team_id, e.user_id, e.key_id, e.model, e.served_model, e.engine,
           1::bigint AS requests, (e.coverage = 'estimated')::integer::bigint AS estimated, e.prompt_tokens,
           e.cached_tokens, e.completion_tokens, e.reasoning_tokens, e.cost_pico_usd, left(e.session, 128) AS session
      FROM usage_event e WHERE e.ingest_xid >= {first} AND e.ingest_xid < {below} {events}
    UNION ALL
    SELECT a.opened_at, a.organization_id, a.team_id, a.user_id, a.key_id, a.model, a.served_model, e.engine,
           0::bigint, 0::bigint, a.prompt_tokens, a.cached_tokens, a.completion_tokens, a.reasoning_tokens,
           a.cost_pico_usd, left(e.session, 128)
      FROM usage_adjustment a LEFT JOIN LATERAL (
           SELECT e.engine, e.session FROM usage_event e
            WHERE e.event_id = a.event_id AND e.opened_at = a.opened_at {events} LIMIT 1) AS e ON true
     WHERE a.ingest_xid >= {first} AND a.ingest_xid < {below} {adjustments}
"""

# What a function returns cannot be changed, only made anew; who might call it may call it again.
_OF_TIME = _PARTS.format(
    first="from_xid",
    below="below_xid",
    events="AND e.opened_at >= since AND e.opened_at < until",
    adjustments="AND a.opened_at >= since AND a.opened_at < until",
)
CARRY_PARTS = f"""
CREATE FUNCTION penstock_usage_parts_0011(
    from_xid xid8, below_xid xid8, since timestamp with time zone, until timestamp with time zone
) RETURNS TABLE (
    opened_at timestamp with time zone, organization_id uuid, team_id uuid, user_id uuid, key_id uuid, model text,
    served_model text, engine text, requests bigint, estimated bigint, prompt_tokens bigint, cached_tokens bigint,
    completion_tokens bigint, reasoning_tokens bigint, cost_pico_usd numeric, session text
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan SET jit = off AS $$
BEGIN
    RETURN QUERY {_OF_TIME};
END
$$
"""

PARTS_SIGNATURE = "(xid8, xid8, timestamp with time zone, timestamp with time zone)"
SWAP_PARTS = f"""
DO $$
DECLARE
    caller text;
BEGIN
    REVOKE ALL ON FUNCTION penstock_usage_parts_0011{PARTS_SIGNATURE} FROM PUBLIC;
    FOR caller IN
        SELECT DISTINCT grantee::regrole::text FROM pg_proc, aclexplode(proacl)
         WHERE oid = 'penstock_usage_parts{PARTS_SIGNATURE}'::regprocedure AND grantee NOT IN (0, proowner)
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION penstock_usage_parts_0011{PARTS_SIGNATURE} TO ' || caller;
    END LOOP;
    DROP FUNCTION penstock_usage_parts{PARTS_SIGNATURE};
    ALTER FUNCTION penstock_usage_parts_0011{PARTS_SIGNATURE} RENAME TO penstock_usage_parts;
    -- Whoever may read the sums of hours goes on serving without being told to grant anything.
    FOR caller IN
        SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)
         WHERE oid = 'usage_hour'::regclass AND privilege_type = 'SELECT' AND grantee NOT IN (0, relowner)
    LOOP
        EXECUTE 'GRANT SELECT ON usage_session TO ' || caller;
    END LOOP;
END
$$
"""  # noqa: S608 - made of constants of this module

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
_SUMS = ", ".join(f"sum({column})" for column in _SUMMED)
_HOUR = "date_trunc('hour', opened_at, 'UTC')"
_FIRST_AND_LAST = "min(opened_at) FILTER (WHERE session IS NOT NULL), max(opened_at) FILTER (WHERE session IS NOT NULL)"


def _added(columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} = rolled.{column} + excluded.{column}" for column in columns)


def _rolled(table: str, period: str, expression: str) -> str:
    """Return the statement that adds what is new to the rows of one rollup."""
    return f"""
        INSERT INTO {table} AS rolled (organization_id, {period}, {_KEY}, {", ".join(_SUMMED)})
        SELECT organization_id, {expression}, {_KEY}, {_SUMS} FROM part GROUP BY 1, 2, {_KEY}
        ON CONFLICT (organization_id, {period}, {_KEY}) DO UPDATE SET {_added(_SUMMED)}
    """  # noqa: S608 - names of this module alone


SESSIONS = f"""
        INSERT INTO usage_session AS rolled (
            organization_id, session, hour, {_KEY}, opened_first, opened_last, {", ".join(_SUMMED)})
        SELECT organization_id, session, {_HOUR}, {_KEY}, {_FIRST_AND_LAST}, {_SUMS} FROM part GROUP BY 1, 2, 3, {_KEY}
        ON CONFLICT (organization_id, session, hour, {_KEY}) DO UPDATE SET {_added(_SUMMED)},
            opened_first = least(rolled.opened_first, excluded.opened_first),
            opened_last = greatest(rolled.opened_last, excluded.opened_last)
"""  # noqa: S608 - names of this module alone


def _totals() -> str:
    columns = ("requests", *(f"charged_{name}" for name in _AMOUNTS), *(f"credited_{name}" for name in _AMOUNTS))
    charged = ", ".join(f"sum(greatest({name}, 0))" for name in _AMOUNTS)
    credited = ", ".join(f"sum(-least({name}, 0))" for name in _AMOUNTS)
    return f"""
        INSERT INTO usage_total AS rolled (organization_id, team_id, served_model, {", ".join(columns)})
        SELECT organization_id, team_id, served_model, sum(requests), {charged}, {credited} FROM part GROUP BY 1, 2, 3
        ON CONFLICT (organization_id, team_id, served_model) DO UPDATE SET {_added(columns)}
    """  # noqa: S608 - names of this module alone


# As before (0006 says how the watermark works), with sessions.
ROLL_UP = f"""
CREATE OR REPLACE FUNCTION penstock_roll_up(rows_max integer, OUT rolled_up bigint, OUT behind boolean)
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
    ), hours AS ({_rolled("usage_hour", "hour", _HOUR)}
    ), days AS ({_rolled("usage_day", "day", "(opened_at AT TIME ZONE 'UTC')::date")}
    ), sessions AS ({SESSIONS}
    ), totals AS ({_totals()})
    SELECT count(*) INTO rolled_up FROM part;
    UPDATE rollup_state SET watermark = below, rolled_up_at = clock_timestamp();
END
$$
"""  # noqa: S608 - statements of this module alone

# Hours and sessions go together: whoever asks for sums of a time's parts finds both or neither.
RETIRE_HOURS = """
CREATE OR REPLACE FUNCTION penstock_retire_hours(before_day date, rows_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $$
DECLARE
    removed bigint;
    removed_sessions bigint;
BEGIN
    IF before_day + 2 > (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'nothing is dropped before it is 2 days old, as % is not yet', before_day;
    END IF;
    IF rows_max NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'rows_max must be between 1 and 1000000, not %', rows_max;
    END IF;
    DELETE FROM usage_hour WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM usage_hour WHERE hour < before_day::timestamp AT TIME ZONE 'UTC' LIMIT rows_max));
    GET DIAGNOSTICS removed = ROW_COUNT;
    DELETE FROM usage_session WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM usage_session WHERE hour < before_day::timestamp AT TIME ZONE 'UTC' LIMIT rows_max));
    GET DIAGNOSTICS removed_sessions = ROW_COUNT;
    UPDATE rollup_state SET hours_retired_before = greatest(hours_retired_before, before_day)
     WHERE hours_retired_before IS DISTINCT FROM greatest(hours_retired_before, before_day);
    RETURN greatest(removed, removed_sessions);
END
$$
"""

# A pass of the function of before may wait for this row, and would go on as it was written then: it finds the row gone
# and fails as a whole, and the next pass is one of the new function.
STOP_PASSES = "WITH before AS (DELETE FROM rollup_state RETURNING *) INSERT INTO rollup_state SELECT * FROM before"

# What is below the watermark already: sessions as events tell them, where those are still there; the rest of each hour
# is of no session. So it has the sums of the hours from the start.
FILL = f"""
WITH part AS MATERIALIZED (
    SELECT {_HOUR} AS hour, part.* FROM ({
    _PARTS.format(first="'0'::xid8", below="(SELECT watermark FROM rollup_state)", events="", adjustments="")
}) AS part WHERE session IS NOT NULL
), all_of_it AS (
    SELECT organization_id, session, hour, {_KEY}, opened_at, {", ".join(_SUMMED)} FROM part
    UNION ALL
    SELECT organization_id, NULL, hour, {_KEY}, NULL, {", ".join(f"-{column}" for column in _SUMMED)} FROM part
    UNION ALL
    SELECT organization_id, NULL, hour, {_KEY}, NULL, {", ".join(_SUMMED)} FROM usage_hour
)
INSERT INTO usage_session (organization_id, session, hour, {_KEY}, opened_first, opened_last, {", ".join(_SUMMED)})
SELECT organization_id, session, hour, {_KEY}, {_FIRST_AND_LAST}, {_SUMS}
  FROM all_of_it WHERE hour >= (
       SELECT coalesce(hours_retired_before::timestamp AT TIME ZONE 'UTC', '-infinity') FROM rollup_state)
 GROUP BY organization_id, session, hour, {_KEY}
HAVING session IS NOT NULL OR ({_SUMS}) <> ({", ".join("0" for _ in _SUMMED)})
"""  # noqa: S608 - statements of this module alone

FUNCTIONS = (
    f"penstock_usage_parts{PARTS_SIGNATURE}",
    "penstock_roll_up(integer)",
    "penstock_retire_hours(date, integer)",
)


def _pin(function: str) -> str:
    """Return what lets a function find this schema's tables alone: replacing it has dropped that setting."""
    return f"""
        DO $$
        BEGIN
            EXECUTE format('ALTER FUNCTION {function} SET search_path = %I, pg_temp', current_schema());
        END
        $$
    """


def upgrade() -> None:
    for statement in (STOP_PASSES, TABLE, *ABOUT_TABLE, CARRY_PARTS, SWAP_PARTS, ROLL_UP, RETIRE_HOURS):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(_pin(function))
    op.execute(FILL)

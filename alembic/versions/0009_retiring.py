"""What may be dropped of the ledger, and when: functions that run as the schema's owner.

The gateway's role needs no right to drop anything: it can only ask for what these allow.

A database that was migrated between two releases may have them already, from an earlier state of 0006: they are
replaced.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# DROP locks the parent for a moment, and whatever waits for that lock has all traffic wait behind it: 50 ms at most,
# then it is tried again later. (DETACH … CONCURRENTLY would wait for nobody, but cannot run in a function, so that
# replicas would need the right to own tables.) Under SHARE nobody writes to the one partition while it is looked at,
# and everybody reads. A record that comes later finds its partition made again, and is added to the sums.
RETIRE = """
CREATE OR REPLACE FUNCTION penstock_retire_partition(kind text, of_day date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '50ms' SET jit = off AS $$
DECLARE
    home text := current_schema();
    suffix text := to_char(of_day, 'YYYYMMDD');
    child text := format('%I.%I', home, kind || '_' || suffix);
    adjustments text := format('%I.%I', home, 'usage_adjustment_' || suffix);
    since timestamp with time zone := of_day::timestamp AT TIME ZONE 'UTC';
    until timestamp with time zone := (of_day + 1)::timestamp AT TIME ZONE 'UTC';
    seen xid8;
    found boolean;
    kept usage_event[];
BEGIN
    IF kind NOT IN ('usage_open', 'usage_event') THEN
        RAISE EXCEPTION 'kind must be usage_open or usage_event, not %', kind;
    END IF;
    IF of_day + 3 > (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'nothing is dropped before it is 2 days old, as % is not yet', of_day;
    END IF;
    IF to_regclass(child) IS NULL THEN
        RETURN 'gone';
    END IF;
    SELECT watermark INTO STRICT seen FROM rollup_state FOR UPDATE;
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', child);
    IF kind = 'usage_open' THEN
        SELECT EXISTS (
            SELECT FROM usage_open o WHERE o.opened_at >= since AND o.opened_at < until AND NOT EXISTS (
                SELECT FROM usage_event e WHERE e.event_id = o.event_id AND e.opened_at = o.opened_at
                   AND e.opened_at >= since AND e.opened_at < until)) INTO found;
        IF found THEN
            RETURN 'unclosed';
        END IF;
        EXECUTE 'DROP TABLE ' || child;
        RETURN 'dropped';
    END IF;
    -- Whether an OPEN is closed is read from the events: they go last.
    IF EXISTS (SELECT FROM usage_open o WHERE o.opened_at >= since AND o.opened_at < until) THEN
        RETURN 'openings remain';
    END IF;
    IF to_regclass(adjustments) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', adjustments);
    END IF;
    IF EXISTS (SELECT FROM usage_event e WHERE e.ingest_xid >= seen AND e.opened_at >= since AND e.opened_at < until)
       OR EXISTS (SELECT FROM usage_adjustment a
                   WHERE a.ingest_xid >= seen AND a.opened_at >= since AND a.opened_at < until) THEN
        RETURN 'not rolled up';
    END IF;
    -- What was closed for a replica may yet be told by the replica itself, and is corrected then, not billed twice.
    IF of_day + 90 > (now() AT TIME ZONE 'UTC')::date THEN
        SELECT array_agg(e) INTO kept FROM usage_event e
         WHERE e.reaped AND e.opened_at >= since AND e.opened_at < until AND NOT EXISTS (
               SELECT FROM usage_adjustment a WHERE a.event_id = e.event_id AND a.opened_at = e.opened_at
                  AND a.reason = 'late_close');
        IF cardinality(kept) = (
            SELECT count(*) FROM usage_event e WHERE e.opened_at >= since AND e.opened_at < until) THEN
            RETURN 'kept';
        END IF;
    END IF;
    EXECUTE 'DROP TABLE ' || child;
    IF to_regclass(adjustments) IS NOT NULL THEN
        EXECUTE 'DROP TABLE ' || adjustments;
    END IF;
    IF kept IS NOT NULL THEN
        PERFORM penstock_make_partitions(of_day, 1);
        INSERT INTO usage_event SELECT (one).* FROM unnest(kept) AS one;
    END IF;
    UPDATE rollup_state SET retired_before = greatest(retired_before, of_day + 1);
    RETURN 'dropped';
END
$$
"""

# The days have it all.
RETIRE_HOURS = """
CREATE OR REPLACE FUNCTION penstock_retire_hours(before_day date, rows_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $$
DECLARE
    removed bigint;
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
    UPDATE rollup_state SET hours_retired_before = greatest(hours_retired_before, before_day)
     WHERE hours_retired_before IS DISTINCT FROM greatest(hours_retired_before, before_day);
    RETURN removed;
END
$$
"""

FUNCTIONS = ("penstock_retire_partition(text, date)", "penstock_retire_hours(date, integer)")


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
    for statement in (RETIRE, RETIRE_HOURS):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(_pin(function))
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")

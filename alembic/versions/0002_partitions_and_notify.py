"""Partitions are made by a function, and whoever changes identity, limits or prices is heard by every replica.

The gateway needs no right to create tables: the function runs as the schema's owner.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Days are UTC days whatever the server's time zone, so that every replica names the same partition.
MAKE_PARTITIONS = """
CREATE FUNCTION penstock_make_partitions(from_day date, days integer) RETURNS integer
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
        FOREACH parent IN ARRAY ARRAY['usage_open', 'usage_event'] LOOP
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

# The schema of the migration, whatever the caller's path is: nothing that callers made for themselves stands for ours.
PIN_SCHEMA = """
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION penstock_make_partitions(date, integer) SET search_path = %I, pg_temp', current_schema());
END
$$
"""

# Whoever writes the row, every replica hears of it: the payload says what to verify again.
NOTIFY_KEY = """
CREATE FUNCTION penstock_notify_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('penstock', 'key ' || COALESCE(NEW.public_id, OLD.public_id));
    RETURN NULL;
END
$$
"""

NOTIFY_ORGANIZATION = """
CREATE FUNCTION penstock_notify_organization() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := COALESCE(to_jsonb(NEW), to_jsonb(OLD));
BEGIN
    PERFORM pg_notify('penstock', 'organization ' || COALESCE(changed ->> 'organization_id', changed ->> 'id'));
    RETURN NULL;
END
$$
"""

NOTIFY_PRICES = """
CREATE FUNCTION penstock_notify_prices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('penstock', 'prices');
    RETURN NULL;
END
$$
"""

# A new key needs no message, except that somebody may have tried it before it was there (negative cache).
TRIGGERS = (
    (
        "CREATE TRIGGER penstock_notify AFTER INSERT OR UPDATE OR DELETE ON api_key"
        " FOR EACH ROW EXECUTE FUNCTION penstock_notify_key()"
    ),
    *(
        f"CREATE TRIGGER penstock_notify AFTER INSERT OR UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION penstock_notify_organization()"
        for table in ("organization", "team", "app_user", "membership", "limit_rule")
    ),
    (
        "CREATE TRIGGER penstock_notify AFTER INSERT OR UPDATE OR DELETE ON model_price"
        " FOR EACH STATEMENT EXECUTE FUNCTION penstock_notify_prices()"
    ),
)


def upgrade() -> None:
    for statement in (MAKE_PARTITIONS, PIN_SCHEMA, NOTIFY_KEY, NOTIFY_ORGANIZATION, NOTIFY_PRICES, *TRIGGERS):
        op.execute(statement)
    op.execute("SELECT penstock_make_partitions((now() AT TIME ZONE 'UTC')::date - 1, 9)")

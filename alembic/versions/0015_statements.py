"""Statements: what an organization used in a month, as it was said when the month was closed. They never change."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE statement (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID NOT NULL,
        number INTEGER NOT NULL,
        month DATE NOT NULL,
        organization_name TEXT NOT NULL,
        source TEXT NOT NULL,
        closed_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        closed_xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
        CONSTRAINT statement_pkey PRIMARY KEY (id),
        CONSTRAINT statement_organization_id_number_key UNIQUE (organization_id, number),
        CONSTRAINT statement_organization_id_month_key UNIQUE (organization_id, month),
        CONSTRAINT statement_organization_id_id_key UNIQUE (organization_id, id),
        CONSTRAINT statement_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organization (id),
        CONSTRAINT statement_number_check CHECK (number > 0),
        CONSTRAINT statement_month_check CHECK (extract(day FROM month) = 1),
        CONSTRAINT statement_source_check CHECK (source IN ('schedule', 'manual'))
    )
    """,
    """
    CREATE TABLE statement_line (
        statement_id UUID NOT NULL,
        line INTEGER NOT NULL,
        organization_id UUID NOT NULL,
        of_month DATE NOT NULL,
        team_id UUID NOT NULL,
        team_name TEXT NOT NULL,
        model TEXT NOT NULL,
        requests BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        prompt_tokens NUMERIC(38, 0) NOT NULL,
        cached_tokens NUMERIC(38, 0) NOT NULL,
        completion_tokens NUMERIC(38, 0) NOT NULL,
        reasoning_tokens NUMERIC(38, 0) NOT NULL,
        cost_pico_usd NUMERIC(38, 0) NOT NULL,
        CONSTRAINT statement_line_pkey PRIMARY KEY (statement_id, line),
        CONSTRAINT statement_line_organization_id_statement_id_fkey
            FOREIGN KEY (organization_id, statement_id) REFERENCES statement (organization_id, id)
    )
    """,
    "CREATE INDEX statement_line_organization_id_idx ON statement_line (organization_id, of_month)",
    """
    CREATE TABLE statement_state (
        only_row BOOLEAN DEFAULT true NOT NULL,
        closed_through DATE,
        CONSTRAINT statement_state_pkey PRIMARY KEY (only_row),
        CONSTRAINT statement_state_only_row_check CHECK (only_row)
    )
    """,
    "INSERT INTO statement_state DEFAULT VALUES",
    "COMMENT ON COLUMN statement.number IS 'counts the statements of one organization, without gaps'",
    "COMMENT ON COLUMN statement.organization_name IS 'as it was when the month was closed'",
    "COMMENT ON COLUMN statement.closed_xid IS 'the transaction that wrote it, which alone may write its lines'",
    "COMMENT ON COLUMN statement_line.of_month IS 'its statement''s month, or an earlier one that it corrects'",
    "COMMENT ON COLUMN statement_line.model IS 'that served, whose price applies'",
    "COMMENT ON COLUMN statement_state.closed_through IS 'the last month that was closed for all organizations'",
)

# What is closed gets no further lines: not by a fault of ours either.
IN_TIME = """
CREATE FUNCTION penstock_statement_line_in_time() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM statement WHERE id = NEW.statement_id AND closed_xid = pg_current_xact_id()) THEN
        RAISE EXCEPTION 'statement % is closed', NEW.statement_id;
    END IF;
    RETURN NEW;
END
$$
"""

PIN_SCHEMA = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION penstock_statement_line_in_time() SET search_path = %I, pg_temp', current_schema());
END
$$
"""

TRIGGERS = (
    """
    CREATE TRIGGER penstock_in_time BEFORE INSERT ON statement_line
        FOR EACH ROW EXECUTE FUNCTION penstock_statement_line_in_time()
    """,
    """
    CREATE TRIGGER penstock_audit AFTER INSERT OR UPDATE OR DELETE ON statement
        FOR EACH ROW EXECUTE FUNCTION penstock_audit('statement')
    """,
)
FROZEN = ("statement", "statement_line")


def upgrade() -> None:
    for statement in (*TABLES, IN_TIME, PIN_SCHEMA, *TRIGGERS):
        op.execute(statement)
    for table in FROZEN:
        op.execute(
            f"CREATE TRIGGER penstock_append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION penstock_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER penstock_keep_all BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION penstock_append_only()"
        )


def downgrade() -> None:
    for table in ("statement_state", "statement_line", "statement"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION penstock_statement_line_in_time")

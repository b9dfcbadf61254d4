"""Openings are read in the order in which they came, so that those without an end are found without a search."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CHANGES = (
    "CREATE INDEX usage_open_ingested_at_idx ON usage_open (ingested_at)",
    """
    CREATE TABLE reaper_state (
        only_row BOOLEAN DEFAULT true NOT NULL,
        closed_before TIMESTAMP WITH TIME ZONE DEFAULT 'epoch'::timestamptz NOT NULL,
        CONSTRAINT reaper_state_pkey PRIMARY KEY (only_row),
        CONSTRAINT reaper_state_only_row_check CHECK (only_row)
    )
    """,
    "COMMENT ON COLUMN reaper_state.closed_before IS 'what was opened and had come by then is closed'",
    "INSERT INTO reaper_state DEFAULT VALUES",
)

UNDO = (
    "DROP TABLE reaper_state",
    "DROP INDEX usage_open_ingested_at_idx",
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)


def downgrade() -> None:
    for statement in UNDO:
        op.execute(statement)

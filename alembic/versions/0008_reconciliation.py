"""What counters of replicas and engines said when they were last taken as right."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = """
    CREATE TABLE reconcile_baseline (
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        taken_at TIMESTAMP WITH TIME ZONE NOT NULL,
        figures JSONB NOT NULL,
        CONSTRAINT reconcile_baseline_pkey PRIMARY KEY (kind, subject),
        CONSTRAINT reconcile_baseline_kind_check CHECK (kind IN ('replica', 'engine'))
    )
"""
COMMENT = "COMMENT ON COLUMN reconcile_baseline.subject IS 'boot id of a replica, address of an engine'"


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(COMMENT)


def downgrade() -> None:
    op.execute("DROP TABLE reconcile_baseline")

"""Limits on input and output tokens, concurrent requests, length of answers and money; OPENs say what they may cost."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Constant defaults and nullable columns: no table is rewritten, and replicas of the release before go on writing.
COLUMNS = (
    """
    ALTER TABLE limit_rule
        ADD COLUMN input_tokens_per_minute BIGINT,
        ADD COLUMN input_tokens_burst BIGINT,
        ADD COLUMN output_tokens_per_minute BIGINT,
        ADD COLUMN output_tokens_burst BIGINT,
        ADD COLUMN concurrent_requests BIGINT,
        ADD COLUMN output_tokens_max BIGINT,
        ADD COLUMN budget_day_pico_usd NUMERIC(38, 0),
        ADD COLUMN budget_week_pico_usd NUMERIC(38, 0),
        ADD COLUMN budget_month_pico_usd NUMERIC(38, 0),
        ADD COLUMN budget_stops_streams BOOLEAN DEFAULT false NOT NULL
    """,
    """
    ALTER TABLE limit_rule ADD CONSTRAINT limit_rule_amounts_check CHECK (input_tokens_per_minute > 0
        AND input_tokens_burst > 0 AND output_tokens_per_minute > 0 AND output_tokens_burst > 0
        AND concurrent_requests > 0 AND output_tokens_max > 0 AND budget_day_pico_usd >= 0
        AND budget_week_pico_usd >= 0 AND budget_month_pico_usd >= 0)
    """,
    """
    ALTER TABLE usage_open
        ADD COLUMN endpoint TEXT,
        ADD COLUMN streamed BOOLEAN,
        ADD COLUMN estimate_cost_pico_usd NUMERIC(38, 0) DEFAULT 0 NOT NULL
    """,
    "COMMENT ON COLUMN usage_open.estimate_cost_pico_usd IS 'the most that the request was expected to cost'",
)

UNDO = (
    "ALTER TABLE usage_open DROP COLUMN endpoint, DROP COLUMN streamed, DROP COLUMN estimate_cost_pico_usd",
    "ALTER TABLE limit_rule DROP CONSTRAINT limit_rule_amounts_check",
    """
    ALTER TABLE limit_rule
        DROP COLUMN input_tokens_per_minute, DROP COLUMN input_tokens_burst, DROP COLUMN output_tokens_per_minute,
        DROP COLUMN output_tokens_burst, DROP COLUMN concurrent_requests, DROP COLUMN output_tokens_max,
        DROP COLUMN budget_day_pico_usd, DROP COLUMN budget_week_pico_usd, DROP COLUMN budget_month_pico_usd,
        DROP COLUMN budget_stops_streams
    """,
)


def upgrade() -> None:
    for statement in COLUMNS:
        op.execute(statement)


def downgrade() -> None:
    for statement in UNDO:
        op.execute(statement)

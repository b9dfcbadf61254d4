"""The comment on usage_event.endpoint names the endpoints that came later."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = "chat.completions, completions, embeddings"
AFTER = f"{BEFORE}, messages, messages.count_tokens, responses"


def upgrade() -> None:
    op.execute(f"COMMENT ON COLUMN usage_event.endpoint IS '{AFTER}'")


def downgrade() -> None:
    op.execute(f"COMMENT ON COLUMN usage_event.endpoint IS '{BEFORE}'")

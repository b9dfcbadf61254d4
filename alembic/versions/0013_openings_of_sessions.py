"""Openings are found by their session: what is in flight of one is asked of every new session that has a budget."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Openings of the release before have no session, so nothing is put into it while replicas are waiting.
    op.execute(
        "CREATE INDEX usage_open_session_idx ON usage_open (organization_id, session, deadline_at)"
        " WHERE session IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX usage_open_session_idx")

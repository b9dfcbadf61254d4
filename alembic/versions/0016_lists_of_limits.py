"""Limits of an organization are listed in the order of their ids: from an index, however many there are."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX limit_rule_organization_id_id_idx ON limit_rule (organization_id, id)")
    op.execute("DROP INDEX limit_rule_organization_id_idx")  # the new one begins with the same column


def downgrade() -> None:
    op.execute("CREATE INDEX limit_rule_organization_id_idx ON limit_rule (organization_id)")
    op.execute("DROP INDEX limit_rule_organization_id_id_idx")

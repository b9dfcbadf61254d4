"""Pages of keys come from indexes: of a team, of a user, of those that are not revoked, of those that have expired."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        "CREATE INDEX api_key_team_id_id_idx ON api_key (team_id, id)",
        "CREATE INDEX api_key_user_id_id_idx ON api_key (user_id, id)",
        "CREATE INDEX api_key_living_idx ON api_key (organization_id, id) WHERE revoked_at IS NULL",
        "CREATE INDEX api_key_expires_at_idx ON api_key (organization_id, expires_at) WHERE revoked_at IS NULL",
        "DROP INDEX api_key_team_id_idx",
        "DROP INDEX api_key_user_id_idx",
    ):
        op.execute(statement)


def downgrade() -> None:
    for statement in (
        "CREATE INDEX api_key_team_id_idx ON api_key (team_id)",
        "CREATE INDEX api_key_user_id_idx ON api_key (user_id)",
        "DROP INDEX api_key_team_id_id_idx",
        "DROP INDEX api_key_user_id_id_idx",
        "DROP INDEX api_key_living_idx",
        "DROP INDEX api_key_expires_at_idx",
    ):
        op.execute(statement)

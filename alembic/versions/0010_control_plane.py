"""Who administers what, keys that rotate and are held to addresses, budgets of sessions, and the audit log."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Constant defaults and nullable columns: no table is rewritten, and replicas of the release before go on writing.
COLUMNS = (
    """
    ALTER TABLE app_user
        ADD COLUMN role TEXT DEFAULT 'member' NOT NULL,
        ADD COLUMN role_source TEXT DEFAULT 'manual' NOT NULL,
        ADD COLUMN email TEXT,
        ADD COLUMN oidc_issuer TEXT,
        ADD COLUMN oidc_subject TEXT,
        ADD CONSTRAINT app_user_role_check CHECK (role IN ('member', 'organization_admin', 'platform_admin')),
        ADD CONSTRAINT app_user_role_source_check CHECK (role_source IN ('manual', 'oidc')),
        ADD CONSTRAINT app_user_oidc_check CHECK ((oidc_issuer IS NULL) = (oidc_subject IS NULL))
    """,
    """
    CREATE UNIQUE INDEX app_user_oidc_idx ON app_user (oidc_issuer, oidc_subject)
        WHERE deleted_at IS NULL AND oidc_subject IS NOT NULL
    """,
    """
    ALTER TABLE membership
        ADD COLUMN source TEXT DEFAULT 'manual' NOT NULL,
        ADD CONSTRAINT membership_source_check CHECK (source IN ('manual', 'oidc'))
    """,
    """
    ALTER TABLE api_key
        ADD COLUMN previous_secret_hmac BYTEA,
        ADD COLUMN previous_pepper_version SMALLINT,
        ADD COLUMN previous_expires_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN rotated_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN addresses_allowed CIDR[],
        ADD CONSTRAINT api_key_previous_check CHECK (
            num_nulls(previous_secret_hmac, previous_pepper_version, previous_expires_at) IN (0, 3))
    """,
    "COMMENT ON COLUMN api_key.previous_secret_hmac IS 'the secret before the last rotation'",
    "COMMENT ON COLUMN api_key.previous_expires_at IS 'until when the secret before counts, too'",
    "COMMENT ON COLUMN api_key.addresses_allowed IS 'from where it may be used; null: from anywhere'",
    """
    ALTER TABLE limit_rule
        ADD COLUMN budget_session_pico_usd NUMERIC(38, 0),
        ADD CONSTRAINT limit_rule_budget_session_check CHECK (budget_session_pico_usd >= 0)
    """,
    "ALTER TABLE usage_open ADD COLUMN session TEXT",
    """
    ALTER TABLE admin_credential
        ADD COLUMN organization_id UUID,
        ADD COLUMN user_id UUID,
        ADD COLUMN source TEXT DEFAULT 'manual' NOT NULL,
        ADD CONSTRAINT admin_credential_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organization (id),
        ADD CONSTRAINT admin_credential_organization_id_user_id_fkey
            FOREIGN KEY (organization_id, user_id) REFERENCES app_user (organization_id, id),
        ADD CONSTRAINT admin_credential_reach_check CHECK (user_id IS NULL OR organization_id IS NOT NULL),
        ADD CONSTRAINT admin_credential_source_check CHECK (source IN ('manual', 'oidc'))
    """,
    "COMMENT ON COLUMN admin_credential.organization_id IS 'null: the whole platform'",
    "COMMENT ON COLUMN admin_credential.user_id IS 'may do what this user may; null: all of the organization'",
    "CREATE INDEX admin_credential_organization_id_idx ON admin_credential (organization_id)",
    "CREATE INDEX admin_credential_user_id_idx ON admin_credential (user_id)",
)

AUDIT_TABLE = """
CREATE TABLE audit_event (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    organization_id UUID,
    actor JSONB NOT NULL,
    action TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    before JSONB,
    after JSONB,
    CONSTRAINT audit_event_pkey PRIMARY KEY (id),
    CONSTRAINT audit_event_action_check CHECK (action IN ('create', 'change', 'delete'))
)
"""

AUDIT_COMMENTS = (
    "COMMENT ON COLUMN audit_event.organization_id IS 'whose thing it is; null: of the whole platform'",
    "COMMENT ON COLUMN audit_event.actor IS 'who did it and from where: kind, id, name, credential, address, …'",
    "COMMENT ON COLUMN audit_event.before IS 'the row without secrets; null: it was made'",
    "COMMENT ON COLUMN audit_event.after IS 'the row without secrets; null: it was removed'",
    "CREATE INDEX audit_event_organization_id_idx ON audit_event (organization_id, id)",
    "CREATE INDEX audit_event_subject_idx ON audit_event (subject_kind, subject_id, id)",
)

# A trigger and not the service functions: whoever writes a row, SQL by hand included, leaves a trace that code cannot
# forget. It runs as the schema's owner, so that nobody needs a right to write the log.
AUDIT_FUNCTION = """
CREATE FUNCTION penstock_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    secrets CONSTANT text[] := ARRAY['secret_hmac', 'pepper_version', 'previous_secret_hmac',
                                     'previous_pepper_version', 'secret_nonce'];
    old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    some_row jsonb := COALESCE(new_row, old_row);
    who text := NULLIF(current_setting('penstock.actor', true), '');
BEGIN
    IF old_row = new_row THEN
        RETURN NULL;
    END IF;
    INSERT INTO audit_event (organization_id, actor, action, subject_kind, subject_id, before, after)
    VALUES (
        COALESCE(some_row ->> 'organization_id',
                 CASE WHEN TG_TABLE_NAME = 'organization' THEN some_row ->> 'id' END)::uuid,
        COALESCE(who::jsonb, jsonb_build_object('kind', 'database', 'name', session_user)),
        CASE TG_OP WHEN 'INSERT' THEN 'create' WHEN 'DELETE' THEN 'delete' ELSE
            CASE WHEN old_row ->> 'deleted_at' IS NULL AND new_row ->> 'deleted_at' IS NOT NULL
                 THEN 'delete' ELSE 'change' END END,
        TG_ARGV[0],
        COALESCE(some_row ->> 'id', concat_ws(' ', some_row ->> 'team_id', some_row ->> 'user_id')),
        old_row - secrets,
        new_row - secrets
    );
    RETURN NULL;
END
$$
"""

APPEND_ONLY_FUNCTION = """
CREATE FUNCTION penstock_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Erasing a tenant is the one thing that takes entries out, in a transaction that says so.
    IF current_setting('penstock.erasing', true) = TG_TABLE_NAME AND TG_OP <> 'TRUNCATE' THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$
"""

PIN_SCHEMA = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION penstock_audit() SET search_path = %I, pg_temp', current_schema());
END
$$
"""

AUDITED = {
    "organization": "organization",
    "team": "team",
    "app_user": "user",
    "membership": "membership",
    "api_key": "key",
    "limit_rule": "limit",
    "model_price": "price",
    "admin_credential": "admin_key",
}

IDEMPOTENCY_TABLE = """
CREATE TABLE idempotency_record (
    caller TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    request_hash BYTEA NOT NULL,
    status SMALLINT,
    answer BYTEA,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_record_pkey PRIMARY KEY (caller, key_hash)
)
"""

IDEMPOTENCY_COMMENTS = (
    "COMMENT ON COLUMN idempotency_record.answer IS 'encrypted under what the caller alone has: it may hold a key'",
    "CREATE INDEX idempotency_record_created_at_idx ON idempotency_record (created_at)",
)


def upgrade() -> None:
    for statement in (*COLUMNS, AUDIT_TABLE, *AUDIT_COMMENTS, AUDIT_FUNCTION, APPEND_ONLY_FUNCTION, PIN_SCHEMA):
        op.execute(statement)
    for table, kind in AUDITED.items():
        op.execute(
            f"CREATE TRIGGER penstock_audit AFTER INSERT OR UPDATE OR DELETE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION penstock_audit('{kind}')"
        )
    op.execute(
        "CREATE TRIGGER penstock_append_only BEFORE UPDATE OR DELETE ON audit_event"
        " FOR EACH ROW EXECUTE FUNCTION penstock_append_only()"
    )
    op.execute(
        "CREATE TRIGGER penstock_keep_all BEFORE TRUNCATE ON audit_event"
        " FOR EACH STATEMENT EXECUTE FUNCTION penstock_append_only()"
    )
    for statement in (IDEMPOTENCY_TABLE, *IDEMPOTENCY_COMMENTS):
        op.execute(statement)


def downgrade() -> None:
    for table in AUDITED:
        op.execute(f"DROP TRIGGER penstock_audit ON {table}")
    for statement in (
        "DROP TABLE idempotency_record",
        "DROP TABLE audit_event",
        "DROP FUNCTION penstock_append_only",
        "DROP FUNCTION penstock_audit",
        "ALTER TABLE admin_credential DROP COLUMN organization_id, DROP COLUMN user_id, DROP COLUMN source",
        "ALTER TABLE usage_open DROP COLUMN session",
        "ALTER TABLE limit_rule DROP COLUMN budget_session_pico_usd",
        """
        ALTER TABLE api_key DROP COLUMN previous_secret_hmac, DROP COLUMN previous_pepper_version,
            DROP COLUMN previous_expires_at, DROP COLUMN rotated_at, DROP COLUMN addresses_allowed
        """,
        "ALTER TABLE membership DROP COLUMN source",
        "DROP INDEX app_user_oidc_idx",
        """
        ALTER TABLE app_user DROP COLUMN role, DROP COLUMN role_source, DROP COLUMN email, DROP COLUMN oidc_issuer,
            DROP COLUMN oidc_subject
        """,
    ):
        op.execute(statement)

"""Tenants, keys, limits, prices, replicas and the ledger."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE admin_credential (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        public_id TEXT NOT NULL,
        secret_hmac BYTEA NOT NULL,
        pepper_version SMALLINT NOT NULL,
        name TEXT DEFAULT '' NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE,
        revoked_at TIMESTAMP WITH TIME ZONE,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT admin_credential_pkey PRIMARY KEY (id),
        CONSTRAINT admin_credential_public_id_key UNIQUE (public_id),
        CONSTRAINT admin_credential_secret_hmac_check CHECK (length(secret_hmac) = 32)
    )
    """,
    """
    CREATE TABLE model_price (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        model TEXT NOT NULL,
        effective_from TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        input_pico_usd NUMERIC(38, 0) NOT NULL,
        cached_input_pico_usd NUMERIC(38, 0) NOT NULL,
        output_pico_usd NUMERIC(38, 0) NOT NULL,
        reasoning_pico_usd NUMERIC(38, 0) NOT NULL,
        request_pico_usd NUMERIC(38, 0) DEFAULT 0 NOT NULL,
        source TEXT DEFAULT 'config' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT model_price_pkey PRIMARY KEY (id),
        CONSTRAINT model_price_model_effective_from_key UNIQUE (model, effective_from),
        CONSTRAINT model_price_rates_check CHECK (input_pico_usd >= 0
            AND cached_input_pico_usd >= 0 AND output_pico_usd >= 0 AND reasoning_pico_usd >= 0
            AND request_pico_usd >= 0)
    )
    """,
    """
    CREATE TABLE organization (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        name TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT organization_pkey PRIMARY KEY (id),
        CONSTRAINT organization_name_check CHECK (name <> '' AND length(name) <= 200)
    )
    """,
    """
    CREATE TABLE replica (
        boot_id UUID NOT NULL,
        hostname TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        heartbeat_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT replica_pkey PRIMARY KEY (boot_id)
    )
    """,
    """
    CREATE TABLE usage_event (
        event_id UUID NOT NULL,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        boot_id UUID NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        key_id UUID NOT NULL,
        model TEXT NOT NULL,
        served_model TEXT NOT NULL,
        engine TEXT,
        endpoint TEXT NOT NULL,
        session TEXT,
        streamed BOOLEAN NOT NULL,
        attempts SMALLINT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL,
        units JSONB,
        price_id BIGINT,
        cost_pico_usd NUMERIC(38, 0) NOT NULL,
        status TEXT NOT NULL,
        coverage TEXT NOT NULL,
        http_status SMALLINT,
        error_code TEXT,
        ttft_ms INTEGER,
        duration_ms INTEGER NOT NULL,
        ingested_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT usage_event_pkey PRIMARY KEY (event_id, opened_at),
        CONSTRAINT usage_event_status_check CHECK (status IN ('ok', 'client_closed', 'upstream_error', 'interrupted')),
        CONSTRAINT usage_event_coverage_check CHECK (coverage IN ('exact', 'estimated')),
        CONSTRAINT usage_event_amounts_check CHECK (prompt_tokens >= 0
            AND cached_tokens >= 0 AND completion_tokens >= 0 AND reasoning_tokens >= 0
            AND cost_pico_usd >= 0)
    )
     PARTITION BY RANGE (opened_at)
    """,
    """
    CREATE TABLE usage_open (
        event_id UUID NOT NULL,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        deadline_at TIMESTAMP WITH TIME ZONE NOT NULL,
        boot_id UUID NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        key_id UUID NOT NULL,
        model TEXT NOT NULL,
        estimate_prompt_tokens BIGINT NOT NULL,
        estimate_completion_tokens BIGINT NOT NULL,
        ingested_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT usage_open_pkey PRIMARY KEY (event_id, opened_at)
    )
     PARTITION BY RANGE (opened_at)
    """,
    """
    CREATE TABLE app_user (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID NOT NULL,
        name TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT app_user_pkey PRIMARY KEY (id),
        CONSTRAINT app_user_organization_id_id_key UNIQUE (organization_id, id),
        CONSTRAINT app_user_name_check CHECK (name <> '' AND length(name) <= 200),
        CONSTRAINT app_user_organization_id_fkey FOREIGN KEY(organization_id) REFERENCES organization (id)
    )
    """,
    """
    CREATE TABLE limit_rule (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID NOT NULL,
        level TEXT NOT NULL,
        subject_id UUID NOT NULL,
        model TEXT DEFAULT '' NOT NULL,
        requests_per_minute BIGINT,
        requests_burst BIGINT,
        tokens_per_minute BIGINT,
        tokens_burst BIGINT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT limit_rule_pkey PRIMARY KEY (id),
        CONSTRAINT limit_rule_subject_id_level_model_key UNIQUE (subject_id, level, model),
        CONSTRAINT limit_rule_level_check CHECK (level IN ('organization', 'team', 'user', 'key')),
        CONSTRAINT limit_rule_positive_check CHECK (requests_per_minute > 0
            AND requests_burst > 0 AND tokens_per_minute > 0 AND tokens_burst > 0),
        CONSTRAINT limit_rule_organization_id_fkey FOREIGN KEY(organization_id) REFERENCES organization (id)
    )
    """,
    """
    CREATE TABLE team (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID NOT NULL,
        name TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT team_pkey PRIMARY KEY (id),
        CONSTRAINT team_organization_id_id_key UNIQUE (organization_id, id),
        CONSTRAINT team_name_check CHECK (name <> '' AND length(name) <= 200),
        CONSTRAINT team_organization_id_fkey FOREIGN KEY(organization_id) REFERENCES organization (id)
    )
    """,
    """
    CREATE TABLE api_key (
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID,
        public_id TEXT NOT NULL,
        secret_hmac BYTEA NOT NULL,
        pepper_version SMALLINT NOT NULL,
        name TEXT DEFAULT '' NOT NULL,
        models_allowed TEXT[],
        expires_at TIMESTAMP WITH TIME ZONE,
        revoked_at TIMESTAMP WITH TIME ZONE,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT api_key_pkey PRIMARY KEY (id),
        CONSTRAINT api_key_public_id_key UNIQUE (public_id),
        CONSTRAINT api_key_organization_id_id_key UNIQUE (organization_id, id),
        CONSTRAINT api_key_organization_id_team_id_fkey FOREIGN KEY(organization_id, team_id)
            REFERENCES team (organization_id, id),
        CONSTRAINT api_key_organization_id_user_id_fkey FOREIGN KEY(organization_id, user_id)
            REFERENCES app_user (organization_id, id),
        CONSTRAINT api_key_secret_hmac_check CHECK (length(secret_hmac) = 32),
        CONSTRAINT api_key_organization_id_fkey FOREIGN KEY(organization_id) REFERENCES organization (id)
    )
    """,
    """
    CREATE TABLE membership (
        organization_id UUID NOT NULL,
        team_id UUID NOT NULL,
        user_id UUID NOT NULL,
        role TEXT DEFAULT 'member' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT membership_pkey PRIMARY KEY (team_id, user_id),
        CONSTRAINT membership_organization_id_team_id_fkey FOREIGN KEY(organization_id, team_id)
            REFERENCES team (organization_id, id),
        CONSTRAINT membership_organization_id_user_id_fkey FOREIGN KEY(organization_id, user_id)
            REFERENCES app_user (organization_id, id),
        CONSTRAINT membership_role_check CHECK (role IN ('member', 'team_admin'))
    )
    """,
)

INDEXES = (
    "CREATE UNIQUE INDEX organization_name_idx ON organization (name) WHERE deleted_at IS NULL",
    "CREATE INDEX usage_event_ingested_at_idx ON usage_event (ingested_at)",
    "CREATE INDEX usage_event_organization_id_idx ON usage_event (organization_id, opened_at)",
    "CREATE UNIQUE INDEX app_user_name_idx ON app_user (organization_id, name) WHERE deleted_at IS NULL",
    "CREATE INDEX limit_rule_organization_id_idx ON limit_rule (organization_id)",
    "CREATE UNIQUE INDEX team_name_idx ON team (organization_id, name) WHERE deleted_at IS NULL",
    "CREATE INDEX api_key_team_id_idx ON api_key (team_id)",
    "CREATE INDEX api_key_user_id_idx ON api_key (user_id)",
    "CREATE INDEX membership_user_id_idx ON membership (user_id)",
)

COMMENTS = (
    "COMMENT ON COLUMN usage_event.model IS 'as requested, resolved to a name of penstock.yaml'",
    "COMMENT ON COLUMN usage_event.served_model IS 'whose price applies; differs after a fallback'",
    "COMMENT ON COLUMN usage_event.engine IS 'null: no engine was reached'",
    "COMMENT ON COLUMN usage_event.endpoint IS 'chat.completions, completions, embeddings'",
    "COMMENT ON COLUMN usage_event.units IS 'what is not a token: images, seconds, cache writes'",
    "COMMENT ON COLUMN usage_event.price_id IS 'null: the model had no price'",
    "COMMENT ON COLUMN usage_event.ttft_ms IS 'null: nothing was sent'",
    "COMMENT ON COLUMN usage_open.model IS 'as requested, resolved to a name of penstock.yaml'",
    "COMMENT ON COLUMN limit_rule.subject_id IS 'id of the organization, team, user or key that is limited'",
    "COMMENT ON COLUMN limit_rule.model IS 'empty: every model'",
    "COMMENT ON COLUMN api_key.user_id IS 'null: a service key of the team'",
    "COMMENT ON COLUMN api_key.public_id IS 'the part of the key that names it; not secret'",
    "COMMENT ON COLUMN api_key.secret_hmac IS 'HMAC-SHA-256 of the secret; the key is not kept'",
    "COMMENT ON COLUMN api_key.models_allowed IS 'names of penstock.yaml; null: all'",
)


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, *COMMENTS):
        op.execute(statement)

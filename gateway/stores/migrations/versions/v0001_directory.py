"""tenants, users and their credentials, groups, throttles"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "portcullis_tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "portcullis_throttles",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("since_s", sa.Double(), nullable=False),
        sa.Column("blocked_until_s", sa.Double(), nullable=False),
        sa.Column("expires_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("portcullis_throttles_expiry", "portcullis_throttles", ["expires_s"], unique=False)
    op.create_table(
        "portcullis_groups",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("display_name_key", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("changed_s", sa.Double(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant"],
            ["portcullis_tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "display_name_key", name="portcullis_groups_name"),
    )
    op.create_index("portcullis_groups_page", "portcullis_groups", ["tenant", "id"], unique=False)
    op.create_table(
        "portcullis_users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("user_name_key", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("emails", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("changed_s", sa.Double(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant"],
            ["portcullis_tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "user_name_key", name="portcullis_users_name"),
    )
    op.create_index("portcullis_users_external", "portcullis_users", ["tenant", "external_id"], unique=False)
    op.create_index("portcullis_users_page", "portcullis_users", ["tenant", "id"], unique=False)
    op.create_table(
        "portcullis_devices",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("seen_s", sa.Double(), nullable=False),
        sa.Column("expires_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("portcullis_devices_expiry", "portcullis_devices", ["expires_s"], unique=False)
    op.create_index("portcullis_devices_user", "portcullis_devices", ["user_id"], unique=False)
    op.create_table(
        "portcullis_emails",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "email_key"),
    )
    op.create_index("portcullis_emails_key", "portcullis_emails", ["email_key"], unique=False)
    op.create_table(
        "portcullis_identities",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("linked_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "issuer", "subject"),
    )
    op.create_index("portcullis_identities_user", "portcullis_identities", ["user_id"], unique=False)
    op.create_table(
        "portcullis_members",
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["portcullis_groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "member_id"),
    )
    op.create_index("portcullis_members_member", "portcullis_members", ["member_id"], unique=False)
    op.create_table(
        "portcullis_passkeys",
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("transports", sa.Text(), nullable=False),
        sa.Column("aaguid", sa.Text(), nullable=False),
        sa.Column("discoverable", sa.Boolean(), nullable=False),
        sa.Column("backed_up", sa.Boolean(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("used_s", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("credential_id"),
    )
    op.create_index("portcullis_passkeys_user", "portcullis_passkeys", ["user_id"], unique=False)
    op.create_table(
        "portcullis_passwords",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("changed_s", sa.Double(), nullable=False),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "portcullis_recovery_codes",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_s", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "code_hash"),
    )
    op.create_table(
        "portcullis_totps",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "id"),
    )


def downgrade() -> None:
    op.drop_table("portcullis_totps")
    op.drop_table("portcullis_recovery_codes")
    op.drop_table("portcullis_passwords")
    op.drop_index("portcullis_passkeys_user", table_name="portcullis_passkeys")
    op.drop_table("portcullis_passkeys")
    op.drop_index("portcullis_members_member", table_name="portcullis_members")
    op.drop_table("portcullis_members")
    op.drop_index("portcullis_identities_user", table_name="portcullis_identities")
    op.drop_table("portcullis_identities")
    op.drop_index("portcullis_emails_key", table_name="portcullis_emails")
    op.drop_table("portcullis_emails")
    op.drop_index("portcullis_devices_user", table_name="portcullis_devices")
    op.drop_index("portcullis_devices_expiry", table_name="portcullis_devices")
    op.drop_table("portcullis_devices")
    op.drop_index("portcullis_users_page", table_name="portcullis_users")
    op.drop_index("portcullis_users_external", table_name="portcullis_users")
    op.drop_table("portcullis_users")
    op.drop_index("portcullis_groups_page", table_name="portcullis_groups")
    op.drop_table("portcullis_groups")
    op.drop_index("portcullis_throttles_expiry", table_name="portcullis_throttles")
    op.drop_table("portcullis_throttles")
    op.drop_table("portcullis_tenants")

"""past log-ins of users, for journeys that nobody makes"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "portcullis_logins",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("network", sa.LargeBinary(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "at_s"),
    )
    op.create_index("portcullis_logins_age", "portcullis_logins", ["at_s"], unique=False)


def downgrade() -> None:
    op.drop_index("portcullis_logins_age", table_name="portcullis_logins")
    op.drop_table("portcullis_logins")

"""The tables of everything that lies in SQL, as the newest migration leaves them. A test compares the two.

One set of tables serves SQLite and PostgreSQL. Names that are unique without regard to case are kept a second time,
folded, for the index; so no database's own idea of case matters. Times are Unix seconds.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData()


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _time(name: str, *, null: bool = False) -> Column[float]:
    return Column(name, Double, nullable=null)


def _of_user() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["user_id"], ["portcullis_users.id"], ondelete="CASCADE")


TENANTS: Final = Table(
    "portcullis_tenants",
    METADATA,
    _text("id"),
    _text("name"),
    Column("active", Boolean, nullable=False),
    _text("settings"),  # JSON
    PrimaryKeyConstraint("id"),
)

USERS: Final = Table(
    "portcullis_users",
    METADATA,
    _text("id"),
    _text("tenant"),
    _text("user_name"),
    _text("user_name_key"),  # folded
    Column("active", Boolean, nullable=False),
    _text("external_id"),
    _text("emails"),  # JSON
    _text("attributes"),  # JSON
    _time("created_s"),
    _time("changed_s"),
    Column("version", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant", "user_name_key", name="portcullis_users_name"),
    ForeignKeyConstraint(["tenant"], ["portcullis_tenants.id"]),
    Index("portcullis_users_external", "tenant", "external_id"),
    Index("portcullis_users_page", "tenant", "id"),
)

EMAILS: Final = Table(
    "portcullis_emails",
    METADATA,
    _text("user_id"),
    _text("email_key"),  # folded
    PrimaryKeyConstraint("user_id", "email_key"),
    _of_user(),
    Index("portcullis_emails_key", "email_key"),
)

IDENTITIES: Final = Table(
    "portcullis_identities",
    METADATA,
    _text("tenant"),
    _text("issuer"),
    _text("subject"),
    _text("user_id"),
    _time("linked_s"),
    PrimaryKeyConstraint("tenant", "issuer", "subject"),
    _of_user(),
    Index("portcullis_identities_user", "user_id"),
)

PASSWORDS: Final = Table(
    "portcullis_passwords",
    METADATA,
    _text("user_id"),
    _text("hash"),
    _time("changed_s"),
    Column("must_change", Boolean, nullable=False),
    PrimaryKeyConstraint("user_id"),
    _of_user(),
)

PASSKEYS: Final = Table(
    "portcullis_passkeys",
    METADATA,
    Column("credential_id", LargeBinary, nullable=False),
    _text("user_id"),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    _text("name"),
    _text("transports"),  # JSON
    _text("aaguid"),
    Column("discoverable", Boolean, nullable=False),
    Column("backed_up", Boolean, nullable=False),
    _time("created_s"),
    _time("used_s", null=True),
    PrimaryKeyConstraint("credential_id"),
    _of_user(),
    Index("portcullis_passkeys_user", "user_id"),
)

TOTPS: Final = Table(
    "portcullis_totps",
    METADATA,
    _text("user_id"),
    _text("id"),
    Column("sealed", LargeBinary, nullable=False),
    _text("name"),
    Column("confirmed", Boolean, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    _time("created_s"),
    PrimaryKeyConstraint("user_id", "id"),
    _of_user(),
)

RECOVERY_CODES: Final = Table(
    "portcullis_recovery_codes",
    METADATA,
    _text("user_id"),
    Column("code_hash", LargeBinary, nullable=False),
    _time("used_s", null=True),
    PrimaryKeyConstraint("user_id", "code_hash"),
    _of_user(),
)

DEVICES: Final = Table(
    "portcullis_devices",
    METADATA,
    _text("tenant"),
    _text("id"),
    _text("user_id"),
    Column("secret_hash", LargeBinary, nullable=False),
    _text("public_key"),
    _text("name"),
    _time("created_s"),
    _time("seen_s"),
    _time("expires_s"),
    PrimaryKeyConstraint("tenant", "id"),
    _of_user(),
    Index("portcullis_devices_user", "user_id"),
    Index("portcullis_devices_expiry", "expires_s"),
)

LOGINS: Final = Table(
    "portcullis_logins",
    METADATA,
    _text("user_id"),
    _time("at_s"),
    Column("network", LargeBinary, nullable=False),
    _text("country"),
    Column("latitude", Double, nullable=True),
    Column("longitude", Double, nullable=True),
    PrimaryKeyConstraint("user_id", "at_s"),
    _of_user(),
    Index("portcullis_logins_age", "at_s"),
)

GROUPS: Final = Table(
    "portcullis_groups",
    METADATA,
    _text("id"),
    _text("tenant"),
    _text("display_name"),
    _text("display_name_key"),  # folded
    _text("external_id"),
    _text("attributes"),  # JSON
    _time("created_s"),
    _time("changed_s"),
    Column("version", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant", "display_name_key", name="portcullis_groups_name"),
    ForeignKeyConstraint(["tenant"], ["portcullis_tenants.id"]),
    Index("portcullis_groups_page", "tenant", "id"),
)

MEMBERS: Final = Table(
    "portcullis_members",
    METADATA,
    _text("group_id"),
    _text("member_id"),
    _text("kind"),
    PrimaryKeyConstraint("group_id", "member_id"),
    ForeignKeyConstraint(["group_id"], ["portcullis_groups.id"], ondelete="CASCADE"),
    Index("portcullis_members_member", "member_id"),
)

THROTTLES: Final = Table(
    "portcullis_throttles",
    METADATA,
    _text("key"),
    Column("count", BigInteger, nullable=False),
    _time("since_s"),
    _time("blocked_until_s"),
    _time("expires_s"),
    PrimaryKeyConstraint("key"),
    Index("portcullis_throttles_expiry", "expires_s"),
)

RECORDS: Final = Table(
    "portcullis_records",
    METADATA,
    _text("kind"),
    Column("key", LargeBinary, nullable=False),
    Column("buried", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    Column("seen_s", BigInteger, nullable=False),
    Column("idle_s", BigInteger, nullable=False),
    Column("kept_until_s", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "key"),
    Index("portcullis_records_kept", "kind", "kept_until_s"),
)

RECORD_TAGS: Final = Table(
    "portcullis_record_tags",
    METADATA,
    _text("kind"),
    _text("tag"),
    Column("key", LargeBinary, nullable=False),
    PrimaryKeyConstraint("kind", "tag", "key"),
    Index("portcullis_record_tags_key", "kind", "key"),
)

RECORD_BARS: Final = Table(
    "portcullis_record_bars",
    METADATA,
    _text("kind"),
    _text("tag"),
    Column("before_s", BigInteger, nullable=False),
    Column("until_s", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "tag"),
)

RECORD_CHANGES: Final = Table(
    "portcullis_record_changes",
    METADATA,
    # In SQLite a number is given twice when the last row was removed, unless it says AUTOINCREMENT.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("kind"),
    Column("key", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("buried", Boolean, nullable=False),
    _time("at_s"),
    sqlite_autoincrement=True,
)


def folded(name: str) -> str:
    """Return a name as it is compared: without regard to case, width and composition (Unicode's NFKC and case fold).

    One form for every lookup, ban and unique index, or a variant of a name would be a way around them.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

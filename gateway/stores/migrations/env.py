"""What alembic runs: each migration on the connection, and in the transaction, of whoever called it."""

from alembic import context

from gateway.stores.migrations import VERSION_TABLE
from gateway.stores.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()

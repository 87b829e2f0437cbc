"""Alembic's entry: migrates on the connection that the writer holds; there is no other."""

from alembic import context

from fairlead.engine.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

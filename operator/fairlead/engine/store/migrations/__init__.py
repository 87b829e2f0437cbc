"""How a store comes to the schema of this version: Alembic, forwards only, expand before contract."""

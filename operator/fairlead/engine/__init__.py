"""The engine: everything that happens. One per namespace, the only way out, the owner of the journal."""

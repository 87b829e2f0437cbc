"""`fairlead` and `kubectl fairlead`: the user's own rights, and local mode."""

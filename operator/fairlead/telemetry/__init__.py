"""Spans from the journal, metrics, logs. Losing a backend never touches a run."""

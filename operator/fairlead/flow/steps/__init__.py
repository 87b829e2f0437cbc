"""One module per step kind: what it evaluates at its start, and how an attempt goes on from what was recorded."""

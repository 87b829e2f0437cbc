"""The operator: everything declared. kopf enqueues keys, a work queue serialises them, one reconciler per kind."""

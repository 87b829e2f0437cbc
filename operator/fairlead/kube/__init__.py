"""The Kubernetes edge: one client, server-side apply, watches with resync, the Lease."""

"""Step pods: made for one container call, watched until they end, read, and deleted."""

from fairlead.engine.pods.runner import PodRunner

__all__ = ["PodRunner"]

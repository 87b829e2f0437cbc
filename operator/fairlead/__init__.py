"""Fairlead: a Kubernetes operator for governed AI workflows.

ARCHITECTURE.md shows the rooms of this package and the path of a run through them.
"""

__version__ = "0.1.0"

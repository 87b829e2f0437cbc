"""What can go wrong with a test cluster.

ClusterError
├── Unsuitable      this machine cannot run one; tests are skipped, `check` prints it
├── CommandFailed   a program that we called did not do what we asked; carries its last words
└── Unsupported     this kind of cluster cannot do that (a fault in somebody else's cluster, say)
"""

from __future__ import annotations


class ClusterError(Exception):
    """The test cluster could not do what was asked; the text says what and what to do about it."""


class Unsuitable(ClusterError):
    """This machine lacks something that the cluster needs; one line says what."""


class CommandFailed(ClusterError):
    """A program ended with an error."""


class Unsupported(ClusterError):
    """The cluster in use does not offer this."""

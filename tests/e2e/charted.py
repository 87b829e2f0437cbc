"""The chart on the cluster of this session, whoever installed it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tests.cluster import Cluster, CommandFailed
from tests.e2e.installation import RELEASE, Fairlead, load_images
from tests.e2e.kubectl import Kubectl


def installed(administrator: Kubectl, environment: Mapping[str, str]) -> Fairlead:
    """Return the installation that is there, else install ours from the checkout.

    With a KUBECONFIG of somebody else's cluster the images are expected to be on its nodes.
    """
    fairlead = Fairlead(administrator, environment)
    try:
        fairlead.helm("status", RELEASE)
    except CommandFailed:
        if not os.environ.get("KUBECONFIG"):
            load_images(Cluster())
        # Other tests apply the CRDs by themselves. What only a resync heals shall not take a minute.
        fairlead.install("--set", "crds.enabled=false", "--set", "operator.resyncSeconds=10")
    return fairlead

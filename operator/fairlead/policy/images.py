"""Which images an account may run. Pure. That is no RBAC: the engine makes the pods, so the engine checks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.api.conditions import is_true
from fairlead.api.policy import Policy

ANY_DIGEST = "@sha256:*"


@dataclass(frozen=True, slots=True)
class Image:
    """What a container call runs."""

    name: str

    @property
    def has_digest(self) -> bool:
        """Tell whether the name says which bytes it is."""
        return "@sha256:" in self.name


def image_granted(policies: Iterable[Policy], account: str, image: Image) -> bool:
    """Tell whether a Policy that is Ready grants the image to the account: as it is written, or any of its digests."""
    return any(
        _matches(pattern, image)
        for policy in policies
        if policy.spec.grants is not None and account in policy.spec.grants.service_accounts and _is_ready(policy)
        for pattern in policy.spec.grants.images
    )


def _matches(pattern: str, image: Image) -> bool:
    if pattern.endswith(ANY_DIGEST):
        name, _, digest = image.name.partition("@")
        return bool(digest) and name == pattern.removesuffix(ANY_DIGEST)
    return pattern == image.name


def _is_ready(policy: Policy) -> bool:
    """A Policy whose grants the operator does not bind - its account is somebody else's - grants no images either."""
    return policy.status is not None and is_true(policy.status.conditions, "Ready")

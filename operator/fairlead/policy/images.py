"""Which images an account may run. Pure. That is no RBAC: the engine makes the pods, so the engine checks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.api.conditions import is_true
from fairlead.api.engine import EngineSpec
from fairlead.api.policy import Policy
from fairlead.api.workflow import WorkflowSpec

ANY_DIGEST = "@sha256:*"


@dataclass(frozen=True, slots=True)
class Image:
    """What a container call runs."""

    name: str

    @property
    def has_digest(self) -> bool:
        """Tell whether the name says which bytes it is."""
        return "@sha256:" in self.name


def images_of(spec: WorkflowSpec) -> list[Image]:
    """Return the images that a Workflow runs, in the order of its text, once each."""
    steps = [*spec.steps, *(step for block in spec.blocks for step in block.steps)]
    return [*dict.fromkeys(Image(step.container.image) for step in steps if step.container is not None)]


def tags_allowed(engine: EngineSpec | None) -> bool:
    """Tell whether images without a digest may run."""
    security = engine.security if engine is not None else None
    return security is not None and security.image_tags == "Allowed"


def not_granted(image: Image, account: str) -> str:
    """Return what to say where an image is not granted."""
    return f"no Policy grants the image {image.name} to {account} (spec.grants.images)"


def image_granted(policies: Iterable[Policy], account: str, image: Image) -> bool:
    """Tell whether a Policy that is Ready grants the image to the account: as it is written, or any of its digests."""
    return image_named((policy for policy in policies if _is_ready(policy)), account, image)


def image_named(policies: Iterable[Policy], account: str, image: Image) -> bool:
    """Tell whether a Policy, Ready or not, names the image and the account in its grants."""
    return any(
        _matches(pattern, image)
        for policy in policies
        if policy.spec.grants is not None and account in policy.spec.grants.service_accounts
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

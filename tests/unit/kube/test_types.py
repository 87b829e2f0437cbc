from __future__ import annotations

import pytest

from fairlead.kube import types
from fairlead.kube.types import CRDS, PODS, ROLES, TOOL_FUNCTIONS, WORKFLOWS, ResourceType

TYPES = [value for value in vars(types).values() if isinstance(value, ResourceType)]


@pytest.mark.parametrize(
    ("rt", "where", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("team",), "/api/v1/namespaces/team/pods"),
        (PODS, ("team", "a", "status"), "/api/v1/namespaces/team/pods/a/status"),
        (WORKFLOWS, ("team", "a"), "/apis/fairlead.dev/v1alpha1/namespaces/team/workflows/a"),
        (CRDS, (None, "x"), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/x"),
        (ROLES, ("team", "system:x"), "/apis/rbac.authorization.k8s.io/v1/namespaces/team/roles/system:x"),
        (PODS, ("../../..", "a/b?c"), "/api/v1/namespaces/..%2F..%2F../pods/a%2Fb%3Fc"),
    ],
)
def test_an_object_has_one_path(rt: ResourceType, where: tuple[str, ...], path: str) -> None:
    assert rt.path(*where) == path


def test_a_path_without_the_namespace_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="pods/a needs a namespace"):
        PODS.path(None, "a")
    with pytest.raises(ValueError, match="have no namespace"):
        CRDS.path("team")


@pytest.mark.parametrize("rt", TYPES, ids=lambda rt: rt.plural)
def test_a_type_says_what_stands_in_its_objects(rt: ResourceType) -> None:
    assert rt.api_version.endswith(rt.version)
    assert rt.plural == rt.plural.lower()
    assert rt.plural.startswith(rt.kind.lower()[:-1])


def test_the_kinds_are_those_of_the_models() -> None:
    from fairlead.api.crds import KINDS

    ours = {(rt.plural, rt.kind) for rt in TYPES if rt.group == TOOL_FUNCTIONS.group}
    assert ours == {(kind.crd.plural, kind.crd.kind) for kind in KINDS}

"""The resource types that Fairlead reads and writes: the one place where groups, versions and plurals are spelled.

Everything in `kube/` works on plain dicts and is told by a `ResourceType` where they live.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from fairlead.api import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Where objects of one kind live in the API. `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, or of one object or subresource.

        Args:
            namespace: None for all namespaces (collections only) or a cluster-scoped type.
            name: the object's name; None for the collection.
            subresource: for example `status`.

        Raises:
            ValueError: a namespace where there is none, or none where an object needs one.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self.plural} have no namespace")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.plural}/{name} needs a namespace")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        parts += ["namespaces", quote(namespace, safe="")] if namespace else []
        parts.append(self.plural)
        parts += [quote(part, safe=":") for part in (name, subresource) if part]
        return "/".join(parts)


WORKFLOWS = ResourceType(GROUP, VERSION, "workflows", "Workflow")
WORKFLOW_RUNS = ResourceType(GROUP, VERSION, "workflowruns", "WorkflowRun")
TOOLS = ResourceType(GROUP, VERSION, "tools", "Tool")
TOOL_FUNCTIONS = ResourceType(GROUP, VERSION, "toolfunctions", "ToolFunction")
MODELS = ResourceType(GROUP, VERSION, "models", "Model")
POLICIES = ResourceType(GROUP, VERSION, "policies", "Policy")
CLUSTER_POLICIES = ResourceType(GROUP, VERSION, "clusterpolicies", "ClusterPolicy", namespaced=False)
APPROVALS = ResourceType(GROUP, VERSION, "approvals", "Approval")
ENGINES = ResourceType(GROUP, VERSION, "engines", "Engine")

CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap")
EVENTS = ResourceType("", "v1", "events", "Event")
NAMESPACES = ResourceType("", "v1", "namespaces", "Namespace", namespaced=False)
PODS = ResourceType("", "v1", "pods", "Pod")
SERVICE_ACCOUNTS = ResourceType("", "v1", "serviceaccounts", "ServiceAccount")
SERVICES = ResourceType("", "v1", "services", "Service")
DEPLOYMENTS = ResourceType("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = ResourceType("apps", "v1", "statefulsets", "StatefulSet")
NETWORK_POLICIES = ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
LEASES = ResourceType("coordination.k8s.io", "v1", "leases", "Lease")

ROLES = ResourceType("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = ResourceType("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = ResourceType("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = ResourceType(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
ADMISSION_POLICIES = ResourceType(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
ADMISSION_BINDINGS = ResourceType(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
LOCAL_SUBJECT_ACCESS_REVIEWS = ResourceType(
    "authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview"
)
SELF_SUBJECT_ACCESS_REVIEWS = ResourceType(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
CRDS = ResourceType(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

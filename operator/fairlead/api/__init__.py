"""The custom resources of `fairlead.dev/v1alpha1` as pydantic models: the only definition of the CRDs.

Everything else in the package may import `api`; `api` imports nothing of the package.
"""

GROUP = "fairlead.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

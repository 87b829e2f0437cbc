"""ToolFunction: a resource name for permissions. No object of it can exist.

It is a CRD so that discovery knows `toolfunctions`: `kubectl auth can-i` and `kubectl create role` need that.
"""

from __future__ import annotations

from typing import ClassVar

from fairlead.api.meta import ApiModel, CelRule, Kind, Resource


class ToolFunctionSpec(ApiModel):
    """Never holds anything."""


class ToolFunction(Resource):
    """Permissions only: `invoke` on toolfunctions/<tool>.<function>."""

    cel: ClassVar = (CelRule("false", "permissions only: a ToolFunction cannot be created, grant `invoke` on it"),)
    crd: ClassVar = Kind(kind="ToolFunction", plural="toolfunctions", short_names=())
    spec: ToolFunctionSpec | None = None

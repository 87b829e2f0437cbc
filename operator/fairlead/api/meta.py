"""What every resource shares: the base model, names, conditions, and how CEL rules and list types are written.

Pydantic is the edge: `extra="forbid"` gives local mode the same strictness that the API server's pruning and
strict field validation give on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


def _given(value: Any) -> Any:
    """Refuse null where a value is required, as the API server does: to it, null is the same as nothing."""
    if value is None:
        raise ValueError("a value is required; for null write $( null )")
    return value


CEL_RESERVED = (
    *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"),
    *("namespace", "null", "package", "return", "true", "var", "void", "while"),
)
LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
IDENTIFIER = r"^[a-z][a-zA-Z0-9]{0,39}$"
DECIMAL = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"

ObjectName = Annotated[str, Field(pattern=LABEL, min_length=1, max_length=40)]
AccountName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)]
Identifier = Annotated[str, Field(pattern=IDENTIFIER, min_length=1, max_length=40)]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$", min_length=1, max_length=64)]
ImageName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$",
    ),
]
Expression = Annotated[str, Field(min_length=1, max_length=4096)]
Template = Annotated[str, Field(max_length=65536)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Decimal = Annotated[str, Field(pattern=DECIMAL, max_length=14)]
Cost = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]{1,12})?$", max_length=40)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
JsonObject = dict[str, Any]
JsonValue = Annotated[Any, AfterValidator(_given)]
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
ObservedGeneration = Annotated[
    int, Field(ge=0, description="The metadata.generation that was looked at last; below it, this is old news.")
]


@dataclass(frozen=True, slots=True)
class CelRule:
    """One `x-kubernetes-validations` entry: CEL that must hold, and what to tell the user when it does not."""

    rule: str
    message: str
    field_path: str | None = None

    def as_schema(self) -> dict[str, str]:
        """Return the entry as it stands in the CRD."""
        entry = {"rule": self.rule, "message": self.message}
        return entry | ({"fieldPath": self.field_path} if self.field_path else {})


def list_map(*keys: str) -> dict[str, Any]:
    """Return the `json_schema_extra` of a list of objects that is keyed by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
# In a field's json_schema_extra: let the API server fill in and store the default. Otherwise Python applies it.
EMIT_DEFAULT = "x-fairlead-emit-default"


def cel_name(name: str) -> str:
    """Return what CEL rules call a property: the API server puts CEL's reserved words between underscores."""
    return f"__{name}__" if name in CEL_RESERVED else name


def exactly_one(*names: str) -> str:
    """Return the CEL expression that exactly one of these optional fields is set."""
    return f"[{', '.join(f'has(self.{name})' for name in names)}].filter(x, x).size() == 1"


def immutable(name: str, instead: str) -> CelRule:
    """Return the rule that a field of a spec never changes; `instead` says what to do."""
    field = f"self.{name}"
    same = f"has({field}) == has(oldSelf.{name}) && (!has({field}) || {field} == oldSelf.{name})"
    return CelRule(same, f"{name} is immutable; {instead}", f".{name}")


def append_only(name: str, most: int, message: str) -> CelRule:
    """Return the rule that a list of at most so many entries only grows at its end."""
    before, positions = f"oldSelf.{name}", ", ".join(map(str, range(most)))
    return CelRule(
        f"!has({before}) || (has(self.{name}) && self.{name}.size() >= {before}.size() && "
        f"[{positions}].all(i, i >= {before}.size() || self.{name}[i] == {before}[i]))",
        message,
        f".{name}",
    )


class ApiModel(BaseModel):
    """A part of a resource. Field names are snake_case here and camelCase in YAML."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)
    cel: ClassVar[tuple[CelRule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Put the CEL rules next to what they are about."""
        schema = handler(core)
        if cls.cel:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [rule.as_schema() for rule in cls.cel]
        return schema

    def to_yaml_dict(self) -> dict[str, Any]:
        """Return the object as it is written in YAML: camelCase, without what was not set."""
        return self.model_dump(by_alias=True, exclude_none=True, exclude_unset=True)


class Condition(ApiModel):
    """A `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316, description="What is said, for example Ready.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether it is so.")]
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            description="Why, as one stable word that alerts may match.",
        ),
    ]
    message: Annotated[str, Field(max_length=32768, description="Why, for people.")] = ""
    last_transition_time: Annotated[Timestamp, Field(description="When the status changed last.")]
    observed_generation: ObservedGeneration | None = None


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        description="Where this object stands: one entry for each thing that can be said of it.",
        json_schema_extra=list_map("type"),
    ),
]


class ObjectMeta(BaseModel):
    """The part of `metadata` that Fairlead reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One `additionalPrinterColumns` entry; priority 1 shows with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a CRD needs beside the schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...] = ()
    name_max_length: int = 40
    selectable_fields: tuple[str, ...] = ()
    namespaced: bool = True


class Resource(BaseModel):
    """A whole object. Subclasses narrow `spec` and `status` and say their `crd`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)
    crd: ClassVar[Kind]
    cel: ClassVar[tuple[CelRule, ...]] = ()

    metadata: ObjectMeta

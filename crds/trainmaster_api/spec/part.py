"""A part of a training: a name with typed arguments, or a reference to the user's own code.

Model, optimizer, schedule, loss and metrics are parts. A part's `name` is looked up in a registry: the names that we
ship are in the part's `Family`, with the typed model of their `args` and the defaults that depend on the name; a name
with a `/`, such as `timm/resnet50`, belongs to an entry point of an installed package. A `class` is a reference to
code, `package.module:Name`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic_core import CoreSchema

from trainmaster_api.types import Model, rule_error

from .parameter import Parameter

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$"
REFERENCE_PATTERN = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)
FROM_NAME = {"x-default-from-name": True}  # in a field's JSON schema: its default depends on the part's name

Args = TypeVar("Args", bound=Model)

PartName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=128, examples=["mlp", "timm/resnet50"])]
_Reference = Annotated[str, Field(pattern=REFERENCE_PATTERN, max_length=253, examples=["my_package.module:Name"])]
Reference = Annotated[_Reference | None, Field(alias="class")]


class NoArgs(Model):
    """Takes no arguments."""


@dataclass(frozen=True)
class Shipped:
    """A built-in name.

    Attributes:
        name: Value of `name`.
        args: Model of its `args`.
        summary: One-sentence description, for the reference.
        defaults: Defaults of the part's other fields that depend on the name, by their key in YAML.
        tasks: Tasks that it fits; empty: all.
        needs_images: Whether it works on images only.
        needs_text: Whether it works on text only; a model that doesn't need text takes none.
        needs_shape: Whether all its samples must be one tensor of the same shape.
        searched: Argument -> what a search tries that names no space.
    """

    name: str
    args: type[Model]
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    needs_images: bool = False
    needs_text: bool = False
    needs_shape: bool = False
    searched: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """How the trainer calls a class or a function that isn't ours: with `args` by name, and in addition these.

    Attributes:
        positional: Number of positional arguments that a class is given first.
        function_positional: The same for a function.
        offered: Arguments that are given where the signature has them and `args` doesn't.
        fields: Argument -> field of the part that it comes from, if that is set.
        words: What it is and gets, for the reference.
    """

    positional: int = 0
    function_positional: int = 0
    offered: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    words: str = ""


class Family:
    """The built-in names of one kind of part."""

    def __init__(self, kind: str, *shipped: Shipped, call: Call, group: str = "") -> None:
        """Describe a kind of part.

        Args:
            kind: Word for it in sentences: `model`, `optimizer`.
            shipped: The names.
            call: How a class or an entry point is called.
            group: Entry point group in which packages offer names with a `/`; default: `trainmaster.<kind>s`.
        """
        self.kind = kind
        self.call = call
        self.group = group or f"trainmaster.{kind}s"
        self._shipped = {each.name: each for each in shipped}

    def __iter__(self) -> Iterator[Shipped]:
        return iter(self._shipped.values())

    def __getitem__(self, name: str) -> Shipped:
        return self._shipped[name]

    @property
    def names(self) -> list[str]:
        """The built-in names, sorted."""
        return sorted(self._shipped)

    def get(self, name: str | None) -> Shipped | None:
        """Return the built-in of a name; None for a name from another package and for a class."""
        return self._shipped.get(name or "")

    def unknown(self, name: str) -> str:
        """Return the message for an unknown name."""
        near = difflib.get_close_matches(name.lower(), self.names, n=1)
        return (
            f"unknown {self.kind}; known are {', '.join(self.names)}, or use your own with "
            '`class: "package.module:Name"`' + (f"; did you mean `{near[0]}`?" if near else "")
        )


class Part(Model):
    """A name or a class, and its arguments."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("name", "class")
    FAMILY: ClassVar[Family]

    name: PartName | None = None
    """Name of a built-in, or `<package>/<name>` of an entry point of an installed package."""
    reference: Reference = None
    """Reference to code, `package.module:Name`, in the job's folder or in an installed package; instead of a name."""
    args: Annotated[dict[str, Any], Field(validate_default=True)] = {}
    """Arguments of the name (those of built-ins are in docs/api.md) or of the class."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Put the built-in names, and the defaults that depend on them, into the descriptions."""
        found = super().__get_pydantic_json_schema__(schema, handler)
        fields = handler.resolve_ref_schema(found)["properties"]
        fields["name"]["examples"] = [*cls.FAMILY.names, "package/name"]
        fields["name"]["description"] = f"{', '.join(cls.FAMILY.names)}; or `package/name` of an installed package."
        for key, node in fields.items():
            values = {each.name: each.defaults[key] for each in cls.FAMILY if key in each.defaults}
            if values:
                words = ", ".join(f"{value} ({name})" for name, value in values.items())
                node["description"] = f"{node['description']} Default: {words}."
        return found

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_name(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name = data.get("name")
        shipped = cls.FAMILY.get(name if isinstance(name, str) else None)
        if shipped is None:
            return data
        by_field = {(info.alias or key): key for key, info in cls.model_fields.items()}
        defaults = {key: value for key, value in shipped.defaults.items() if by_field[key] not in data}
        return {**defaults, **data}

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and "/" not in name and cls.FAMILY.get(name) is None:
            raise rule_error(cls.FAMILY.unknown(name))
        return name

    @field_validator("args")
    @classmethod
    def _fit_the_name(cls, args: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Check the arguments of a built-in name, and fill in their defaults."""
        shipped = cls.FAMILY.get(info.data.get("name"))
        return args if shipped is None else shipped.args.model_validate(args, strict=True, by_name=False).wire()

    @property
    def label(self) -> str:
        """The name or the class, for messages and logs."""
        return self.name or self.reference or ""

    def typed_args(self, model: type[Args]) -> Args:
        """Return the arguments as the typed model of a built-in name.

        Raises:
            pydantic.ValidationError: They don't fit; validation of the job has rejected them before.
        """
        return model.model_validate(self.args, strict=True)

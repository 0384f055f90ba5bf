"""The base model and the scalar types that the custom resource shares: durations, shares, quantities."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError

DURATION_PATTERN = r"^[1-9][0-9]{0,8}(ep|step)$"
INTERVAL_PATTERN = r"^(auto|[1-9][0-9]{0,8}(ep|step|s|m|h))$"
WARMUP_PATTERN = r"^(0|[1-9][0-9]{0,8}(ep|step)|([0-9]|[1-9][0-9])%)$"
METRIC_PATTERN = r"^val/[a-z0-9_]+$"
QUANTITY_PATTERN = r"^([0-9]+)(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
# A child's name is `<job>-<attempt>-w-<index>` and every label value and DNS label ends at 63 characters:
# 63 - len("-9999-w-9999") leaves this much for the job.
MAX_NAME_LENGTH = 51
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SUFFIX = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16, examples=["20ep", "1000step"])]
Interval = Annotated[str, Field(pattern=INTERVAL_PATTERN, max_length=16, examples=["auto", "1ep", "500step", "10m"])]
Warmup = Annotated[str, Field(pattern=WARMUP_PATTERN, max_length=16, examples=["5%", "100step", "1ep"])]
Metric = Annotated[str, Field(pattern=METRIC_PATTERN, max_length=64, examples=["val/loss"])]


def _whole_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# `cpus: 2` is as good as `cpus: "2"`, as in a Pod
Quantity = Annotated[
    str,
    Field(
        pattern=QUANTITY_PATTERN,
        max_length=32,
        examples=["500m", "2", "2Gi"],
        json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 0},
    ),
    BeforeValidator(_whole_as_text),
]


def rule_error(message: str) -> PydanticCustomError:
    """Return what a validator raises: `message` is a clause that follows the path of the field."""
    return PydanticCustomError("rule", "{message}", {"message": message})


EXACTLY_ONE_WORDS = "needs exactly one of"


def exactly_one_words(fields: tuple[str, ...]) -> str:
    """Return what a model with `EXACTLY_ONE` requires, as a clause."""
    return f"{EXACTLY_ONE_WORDS} {', '.join(fields)}"


class Model(BaseModel):
    """Base of every typed object: camelCase on the wire, unknown fields are errors, instances don't change."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ()
    """Fields, by their keys in YAML, of which exactly one must be there; the CRD's rule is made from it too."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Put `EXACTLY_ONE` into the JSON schema, for the CRD."""
        found = handler(schema)
        if cls.EXACTLY_ONE:
            handler.resolve_ref_schema(found)["x-exactly-one-of"] = list(cls.EXACTLY_ONE)
        return found

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Self:
        wanted = self.EXACTLY_ONE
        if wanted:
            keys = {info.alias or name: name for name, info in type(self).model_fields.items()}
            found = [key for key in wanted if getattr(self, keys[key]) is not None]
            if len(found) != 1:
                raise rule_error(exactly_one_words(wanted))
        return self

    def wire(self) -> dict[str, Any]:
        """Return the object as YAML or JSON has it: camelCase, no nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_count(value: str) -> tuple[int, str]:
    """Split `20ep`, `1000step`, `10m` or `5%` into its number and its unit."""
    match = re.fullmatch(r"([0-9]+)(ep|step|s|m|h|%)?", value)
    if match is None:
        raise ValueError(f"{value!r} is neither a count (20ep, 1000step), a time (10m) nor a share (5%)")
    return int(match[1]), match[2] or ""


def interval_seconds(value: str) -> int | None:
    """Return the seconds of a time interval such as `10m`; None for `auto`, epochs and steps."""
    if value == "auto":
        return None
    number, unit = parse_count(value)
    return number * _SECONDS[unit] if unit in _SECONDS else None


def parse_quantity(value: str | int | float) -> float:
    """Return the number of a Kubernetes quantity: `500m` -> 0.5, `2Gi` -> 2147483648.0."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", str(value))
    if match is None or match[2] not in _SUFFIX:
        raise ValueError(f"{value!r} is not a Kubernetes quantity (500m, 2, 2Gi)")
    return float(match[1]) * _SUFFIX[match[2]]

"""One parameter of a search, or a range that a part declares for one of its arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from trainmaster_api.types import Model, exactly_one_words, rule_error

PARAMETER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


def _as_written(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Leave `1` and `1.0` what they are."""
    checked = check(value)
    return value if isinstance(value, int) else checked


def _as_read(value: float) -> int | float:
    return value


# both ways: a whole range that a job was written with must be whole where the driver reads it
Number = Annotated[float, WrapValidator(_as_written), PlainSerializer(_as_read)]
ParameterName = Annotated[
    str, Field(pattern=PARAMETER_PATTERN, max_length=253, examples=["optimizer.lr", "model.args.depth"])
]


class Parameter(Model):
    """What is tried for one parameter: a range, a list or a constant."""

    min: Number | None = None
    """Smallest number of a range."""
    max: Number | None = None
    """Largest number of a range, included."""
    step: Number | None = None
    """Distance between the numbers that are tried, counted from `min`."""
    scale: Literal["linear", "log"] = "linear"
    """`log`: every order of magnitude is as likely as any other."""
    type: Literal["int", "float"] | None = None
    """Type of a range's numbers. Default: that of the field; where the field takes anything, whole numbers if `min`,
    `max` and `step` are whole. A range such as 0 to 1 needs it there."""
    values: Annotated[list[Any], Field(min_length=1, max_length=1000)] | None = None
    """The values that are tried, in place of a range: texts, numbers, lists or objects."""
    value: Any = None
    """The only value; for a parameter that isn't searched now."""
    when: Annotated[dict[str, list[Any]], Field(max_length=8)] = {}
    """Values of other parameters under which this one exists: `{optimizer.name: [sgd]}`. Otherwise the template's value
    stays."""

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        # here and not as EXACTLY_ONE: rules of the API server don't see fields of any kind
        given = (self.min is not None or self.max is not None, self.values is not None, self.value is not None)
        if sum(given) != 1:
            raise rule_error(exactly_one_words(("min", "values", "value")))
        return self

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if (self.min is None) != (self.max is None):
            raise rule_error("needs both min and max")
        if self.min is None or self.max is None:
            named = [each for each in ("step", "type") if getattr(self, each) is not None]
            named += ["scale"] if self.scale == "log" else []
            if named:
                raise rule_error(f"has {', '.join(named)}, which belongs to a range: remove it, or give min and max")
            return self
        if not self.min < self.max:
            raise rule_error(f"has min {self.min} and max {self.max}: min must be below max; for one value use `value`")
        if self.scale == "log" and self.min <= 0:
            raise rule_error(f"has scale log and min {self.min}: min must be above 0")
        if self.step is not None and self.scale == "log":
            raise rule_error("has both step and scale log: a step is of a linear range; list `values` instead")
        if self.step is not None and not 0 < self.step <= self.max - self.min:
            raise rule_error(f"has step {self.step}: it must be above 0 and at most max - min = {self.max - self.min}")
        return self

    @model_validator(mode="after")
    def _is_a_choice(self) -> Self:
        values = self.values or []
        twice = next((each for index, each in enumerate(values) if _same(each, values[:index])), None)
        if twice is not None:
            raise rule_error(f"has {twice!r} twice in values")
        return self


def _same(value: Any, others: list[Any]) -> bool:
    """Return whether a value is among others; True isn't 1, but 1.0 is."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in others)

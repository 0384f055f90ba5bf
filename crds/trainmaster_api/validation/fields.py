"""Walking the models along a document: which field a path means, what it accepts, what its default is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainmaster_api.spec.job import Metadata, Spec, TrainingJob
from trainmaster_api.spec.part import FROM_NAME, Part
from trainmaster_api.types import Model

from .describe import accepted_by
from .problem import Problem
from .schema import Schema, node_at, schema_of


@dataclass(frozen=True)
class Place:
    """Where in the models a path of a document leads.

    Attributes:
        path: The path, as in `spec.training.data.features[0]`.
        owner: Model of the object that has the last named field on the way.
        rest: Path from the owner to what is meant; empty: the whole document.
    """

    path: str
    owner: type[Model]
    rest: str

    @property
    def node(self) -> Schema | None:
        """Schema of what belongs at the path; None: unknown. Only this object's schema, or its owner's, is made."""
        return _node(self.owner, self.rest)


def locate(document: Any, location: tuple[int | str, ...]) -> Place:
    """Follow a location of pydantic's through the models; `args` of a name that we ship lead into its arguments."""
    path, rest = "", ""
    owner: type[Model] = TrainingJob
    model: type[Model] | None = TrainingJob
    value = document
    for step in location:
        if isinstance(step, int) and not isinstance(value, dict):
            path, rest = f"{path}[{step}]", f"{rest}[{step}]"
            value = value[step] if isinstance(value, list) and step < len(value) else None
            continue
        step = str(step)
        path = f"{path}.{step}" if path else step
        if model is not None:
            owner, rest = model, step
            model = _below(model, step, value)
        else:
            rest = f"{rest}.{step}"
        value = value.get(step) if isinstance(value, dict) else None
    return Place(path, owner, rest)


def fields_of(model: type[Model]) -> dict[str, FieldInfo]:
    """Return a model's fields by their keys in YAML."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def fill_defaults(value: Any, model: type[Model]) -> Any:
    """Return a copy of `value` as the API server stores it: defaults filled in, nulls dropped where there is one.

    Values of a wrong type are left as they are.
    """
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for key, info in fields_of(model).items():
        below = model_of(info.annotation)
        if filled.get(key) is None and has_default(info):
            filled[key] = _default_of(info, below)
        if below is not None and key in filled:
            filled[key] = _each(filled[key], below, is_map=is_map(info.annotation))
    return filled


def drop_nulls(value: Any, model: type[Model], path: str = "") -> tuple[Any, list[Problem]]:
    """Return `value` without the nulls of known fields, and a problem for each null of a field without a default."""
    if not isinstance(value, dict):
        return value, []
    kept, problems = {}, []
    fields = fields_of(model)
    for key, item in value.items():
        info = fields.get(key)
        where = f"{path}.{key}" if path else str(key)
        if info is None:
            kept[key] = item
        elif item is not None:
            below = _below(model, key, value)
            if below is not None and is_map(info.annotation) and isinstance(item, dict):
                pairs = {name: drop_nulls(each, below, f"{where}.{name}") for name, each in item.items()}
                kept[key] = {name: each for name, (each, _) in pairs.items()}
                found = [problem for _, some in pairs.values() for problem in some]
            else:
                kept[key], found = drop_nulls(item, below, where) if below is not None else (item, [])
            problems += found
        elif not has_default(info) and model is not Metadata:  # where Kubernetes drops every null
            accepted = accepted_by(_node(model, key))
            problems.append(Problem(where, "is empty", accepted=accepted, hint="leave it out or give it a value"))
    return kept, problems


def has_default(info: FieldInfo) -> bool:
    """Return whether the API server fills the field in where it is absent."""
    extra = info.json_schema_extra
    depends = isinstance(extra, dict) and extra.items() >= FROM_NAME.items()
    return info.default is not None and info.default is not PydanticUndefined and not depends


@lru_cache(maxsize=1)
def field_paths() -> tuple[str, ...]:
    """Return the path of every field of the spec and of every argument of a name that we ship, short ones first."""

    def walk(model: type[Model], path: str) -> Iterator[str]:
        for key, info in fields_of(model).items():
            where = f"{path}.{key}"
            yield where
            below = model_of(info.annotation)
            if below is not None and not is_map(info.annotation):
                yield from walk(below, where)
            elif key == "args" and issubclass(model, Part):
                for shipped in model.FAMILY:
                    yield from walk(shipped.args, where)

    return tuple(sorted(walk(Spec, "spec"), key=lambda path: path.count(".")))


def model_of(annotation: Any) -> type[Model] | None:
    """Return the model in an annotation such as `X`, `X | None` or `list[X]`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    found = (model_of(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


def is_map(annotation: Any) -> bool:
    """Return whether an annotation is a map from names to models, such as `dict[str, X]` or `dict[str, X] | None`."""
    is_dict = get_origin(annotation) is dict or any(get_origin(part) is dict for part in get_args(annotation))
    return is_dict and model_of(annotation) is not None


def _node(owner: type[Model], rest: str) -> Schema | None:
    info = fields_of(owner).get(rest)
    if info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, Model):
        return schema_of(info.annotation)
    if not rest or owner is TrainingJob:  # whose status has no one schema
        return None
    return node_at(schema_of(owner), rest)


def _below(model: type[Model], key: str, value: Any) -> type[Model] | None:
    if key == "args" and issubclass(model, Part):
        name = value.get("name") if isinstance(value, dict) else None
        shipped = model.FAMILY.get(name if isinstance(name, str) else None)
        return shipped.args if shipped else None
    info = fields_of(model).get(key)
    return model_of(info.annotation) if info is not None else None


def _each(value: Any, model: type[Model], *, is_map: bool) -> Any:
    if is_map:
        return {key: fill_defaults(item, model) for key, item in value.items()} if isinstance(value, dict) else value
    return [fill_defaults(item, model) for item in value] if isinstance(value, list) else fill_defaults(value, model)


def _default_of(info: FieldInfo, below: type[Model] | None) -> Any:
    if below is None or isinstance(info.default, list | dict):
        return copy.deepcopy(info.default)
    return {key: value for key in below.EXACTLY_ONE if (value := getattr(info.default, key, None)) is not None}

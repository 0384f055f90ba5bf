"""Rules made from the merged unions: which fields belong to which variant, and which of them it needs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .rule import Object, Rule, cel_list
from .rules import RULES
from .schema import Union, structural


@lru_cache(maxsize=1)
def all_rules() -> tuple[Rule, ...]:
    """Every rule: the written ones and those that the unions need."""
    found = list(RULES)
    for union in structural().unions:
        fields = dict.fromkeys(field for own in union.fields.values() for field in own)
        found += [_belongs(union, field) for field in fields]
        found += [_needs(union, variant) for variant, required in union.required.items() if required]
    return tuple(found)


def _has(value: Any, path: str) -> bool:
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True


def _belongs(union: Union, field: str) -> Rule:
    kind = union.path.rpartition(".")[2]
    owners = [variant for variant, fields in union.fields.items() if field in fields]
    return Rule(
        id=f"{kind}.{field.rpartition('.')[2]}",
        scope=union.path,
        field=field,
        reads=(union.tag, field),
        cel=f"!has(self.{field}) || self.{union.tag} in {cel_list(owners)}",
        check=lambda value: not _has(value, field) or value[union.tag] in owners,
        message=f"belongs to {kind} {' or '.join(owners)} only",
    )


def _needs(union: Union, variant: str) -> Rule:
    kind = union.path.rpartition(".")[2]
    required = union.required[variant]

    def check(value: Object) -> bool:
        return value[union.tag] != variant or all(_has(value, field) for field in required)

    return Rule(
        id=f"{kind}-{variant}-required",
        scope=union.path,
        field=required[0] if len(required) == 1 else "",
        reads=(union.tag, *required),
        cel=f"self.{union.tag} != '{variant}' || ({' && '.join(f'has(self.{field})' for field in required)})",
        check=check,
        message=f"{kind} {variant} needs {', '.join(required)}",
    )

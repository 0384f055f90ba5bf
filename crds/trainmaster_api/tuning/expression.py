"""Constraints over parameters: a small subset of CEL, which Kubernetes uses for its rules.

Comparisons and arithmetic over names, numbers, texts and lists, joined by `&&`, `||` and `!`. Python's own parser reads
them, after the operators are put into its words; everything else that Python knows is refused.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

_TEXT_OR_OPERATOR = re.compile(r"""("[^"\\]*"|'[^'\\]*')|(&&)|(\|\|)|(!(?!=))|\b(true|false)\b""")
_WORDS = {"&&": " and ", "||": " or ", "!": " not ", "true": "True", "false": "False"}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda item, items: item in items,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.Not: operator.not_, ast.USub: operator.neg}
ACCEPTED = "numbers, texts, lists, names of parameters, + - * / %, == != < <= > >= in, && || ! and parentheses"


class ExpressionError(ValueError):
    """The expression isn't one, or can't be computed; the message is a clause."""


class AbsentError(ExpressionError):
    """A name has no value: a conditional parameter that doesn't exist in this trial."""


class Expression:
    """A constraint that was read.

    Attributes:
        text: As it was written.
        names: Dotted names in it.
    """

    def __init__(self, text: str) -> None:
        """Read an expression. Raises ExpressionError."""
        self.text = text
        try:
            self._tree = ast.parse(_TEXT_OR_OPERATOR.sub(_as_python, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ExpressionError(f"can't be read; accepted are {ACCEPTED}") from None
        names: set[str] = set()
        _check(self._tree, names)
        self.names = frozenset(names)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether it is true of values by dotted name.

        A constraint over a parameter that doesn't exist in a trial doesn't concern that trial: it holds.

        Raises:
            ExpressionError: The values can't be compared or computed with.
        """
        try:
            return bool(_value(self._tree, values))
        except AbsentError:
            return True
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ExpressionError(f"can't be computed: {error}") from None


@lru_cache(maxsize=256)
def read(text: str) -> Expression:
    """Return an expression. Raises ExpressionError."""
    return Expression(text)


def _as_python(match: re.Match[str]) -> str:
    return match[0] if match[1] else _WORDS[match[0]]


def _check(node: ast.expr, names: set[str]) -> None:
    """Refuse what isn't in the subset; collect the names."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.Name() | ast.Attribute():
            names.add(_name(node))
            return
        case ast.List(elts=parts) | ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            parts = [operand]
        case ast.BinOp(left=left, op=binary, right=right) if type(binary) in _BINARY:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            parts = [left, *others]
        case _:
            raise ExpressionError(f"has {ast.unparse(node)}, which isn't accepted; accepted are {ACCEPTED}")
    for part in parts:
        _check(part, names)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    raise ExpressionError(f"has {ast.unparse(node)}, which isn't accepted; accepted are {ACCEPTED}")


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            name = _name(node)
            if name not in values:
                raise AbsentError(f"{name} has no value")
            return values[name]
        case ast.List(elts=parts):
            return [_value(part, values) for part in parts]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, values) for part in parts)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, values))
        case ast.BinOp(left=left, op=binary, right=right):
            return _BINARY[type(binary)](_value(left, values), _value(right, values))
        case ast.Compare(left=left, ops=ops, comparators=others):
            found = [_value(part, values) for part in (left, *others)]
            return all(_COMPARE[type(op)](*pair) for op, pair in zip(ops, pairwise(found), strict=False))
    raise ExpressionError("can't be computed")


def rejects(constraints: list[str], values: Mapping[str, Any]) -> str | None:
    """Return the first constraint that doesn't hold; None: all hold. Raises ExpressionError."""
    return next((text for text in constraints if not read(text).holds(values)), None)

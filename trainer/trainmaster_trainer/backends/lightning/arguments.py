"""What `training.lightning` says, compared with the classes and with Lightning's Trainer before anything is made."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from trainmaster_api.references import did_you_mean
from trainmaster_api.spec.own import Lightning, OwnClass
from trainmaster_api.spec.part import Call

from trainmaster_trainer import references
from trainmaster_trainer.errors import ConfigurationError

PATH = "lightning"
PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_MOST = 10
_CLASSES = {
    "callbacks": "callbacks.Callback",
    "logger": "loggers.Logger",
    "strategy": "strategies.Strategy",
    "profiler": "profilers.Profiler",
    "plugins": "",
}
"""Arguments of the Trainer that may be objects, and what they have to be."""


def check(spec: Lightning) -> types.ModuleType:
    """Find everything that is wrong with the section; nothing of the user's is called.

    Returns:
        The package that the module is of.

    Raises:
        ConfigurationError: With the first ten problems.
    """
    problems: list[str] = []

    def attempt(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ConfigurationError as error:
            problems.append(error.message)

    module = attempt(lambda: class_of(spec.module, f"{PATH}.module", "LightningModule"))
    package = sys.modules[_package_of(module, "LightningModule") or PACKAGES[0]] if module else None
    data = spec.datamodule
    if data is not None:
        attempt(lambda: class_of(data, f"{PATH}.datamodule", "LightningDataModule", package))
    offered = package or sys.modules[PACKAGES[0]]
    hints = typing.get_type_hints(offered.Trainer.__init__)
    known = sorted(inspect.signature(offered.Trainer).parameters)
    for name, value in spec.trainer.items():
        path = f"{PATH}.trainer.{name}"
        if name not in known:
            problems.append(f"{path}: Lightning's Trainer has no such argument{did_you_mean(name, known)}")
        elif name in _CLASSES and not isinstance(value, str | bool | None):
            many = isinstance(value, list)
            for where, each in [(f"{path}[{n}]", e) for n, e in enumerate(value)] if many else [(path, value)]:
                attempt(functools.partial(_objects, each, where, offered, _CLASSES[name], references.arguments))
        else:
            attempt(functools.partial(_require_type, value, path, hints[name]))
    if problems:
        raise ConfigurationError("; ".join(problems[:_MOST]))
    assert package is not None
    return package


def class_of(own: OwnClass, path: str, base: str, package: types.ModuleType | None = None) -> Any:
    """Return a class of the user's that is one of Lightning's, and that takes its arguments.

    Args:
        own: Reference and arguments.
        path: Where it was given.
        base: Name of Lightning's class.
        package: Whose class it has to be; None: of any.

    Raises:
        ConfigurationError: There is no such class, it isn't of the kind, or the arguments don't fit.
    """
    target = _class_at(own.reference, path)
    found = _package_of(target, base)
    if found is None:
        raise ConfigurationError(
            f"{path} {own.reference}: is no {base}; make it a subclass of {PACKAGES[0]}.{base} or {PACKAGES[1]}.{base}"
        )
    if package is not None and found != package.__name__:
        raise ConfigurationError(
            f"{path} {own.reference}: is of {found} and the module is of {package.__name__}, which don't know each "
            "other; import both from one of them"
        )
    references.arguments(target, path, Call(), own.args)
    return target


def build(own: OwnClass, path: str) -> Any:
    """Return an object of a class of the user's."""
    return references.call(references.resolve(own.reference, path), path, Call(), own.args)


def trainer_arguments(given: dict[str, Any], package: types.ModuleType) -> dict[str, Any]:
    """Return the arguments of a Trainer, with an object in place of each `{class, args}`."""
    made = {
        name: _objects(given[name], f"{PATH}.trainer.{name}", package, base, references.call)
        for name, base in _CLASSES.items()
        if name in given
    }
    return {**given, **made}


def _class_at(reference: str, path: str) -> type:
    target = references.resolve(reference, path)
    if not inspect.isclass(target):
        raise ConfigurationError(f"{path} {reference}: is a {type(target).__name__}; give the class itself")
    return target


def _package_of(target: Any, base: str) -> str | None:
    for name in PACKAGES:
        if name in sys.modules and issubclass(target, getattr(sys.modules[name], base)):
            return name
    return None


def _objects(value: Any, path: str, package: types.ModuleType, base: str, use: Callable[..., Any]) -> Any:
    """Return a value with what `use` makes of each class in it: its arguments, or an object."""
    if isinstance(value, list):
        return [_objects(each, f"{path}[{index}]", package, base, use) for index, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    args = value.get("args") or {}
    if not set(value) <= {"class", "args"} or not isinstance(value.get("class"), str) or not isinstance(args, dict):
        raise ConfigurationError(f"{path}: needs `class: package.module:Name` and, where it takes some, `args`")
    target = _class_at(value["class"], path)
    if base:
        kind, _, name = base.partition(".")
        if not issubclass(target, getattr(getattr(package, kind), name)):
            raise ConfigurationError(f"{path} {value['class']}: is no {name} of {package.__name__}")
    return use(target, path, Call(), args)


def _require_type(value: Any, path: str, hint: Any) -> None:
    """Reject a value of another type than the Trainer's signature says: it would fail later and in other words."""
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError:
        raise ConfigurationError(f"{path} = {value!r}: must be {_words(hint)}") from None


def _words(hint: Any) -> str:
    """Return what a value may be, as YAML has it."""
    names = {type(None): "null", bool: "true or false", str: "text", int: "an integer", float: "a number"}
    found: dict[str, None] = {}
    for each in _alternatives(hint):
        if typing.get_origin(each) is typing.Literal:
            found |= dict.fromkeys(repr(value) for value in typing.get_args(each))
        elif each in names:
            found[names[each]] = None
        elif typing.get_origin(each) in (list, dict):
            found[str(each)] = None
    words = list(found)
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _alternatives(hint: Any) -> list[Any]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [each for part in typing.get_args(hint) for each in _alternatives(part)] if is_union else [hint]

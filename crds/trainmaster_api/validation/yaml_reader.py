"""Reading TrainingJobs from YAML text, with line numbers, and every mistake as a problem.

YAML is read as `kubectl` reads it: `1e-4` is a number, `y` a boolean, dates are text, and a
duplicate key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import yaml

from trainmaster_api import KIND
from trainmaster_api.spec.job import TrainingJob

from .problem import Problem
from .validate import validate

Check = Callable[[TrainingJob], list[Problem]]

MAX_BYTES = 1024 * 1024  # an object in etcd can't be longer
_MAX_DEPTH = 64
_MAX_NODES = 200_000  # aliases can make a short text very large

_FLOAT = re.compile(
    r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")


@dataclass(frozen=True)
class Document:
    """One YAML document.

    Attributes:
        data: its content as plain JSON data.
        problems: what is wrong with the YAML; empty if `data` can be trusted.
        lines: line of each path, from 1.
    """

    data: Any
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, path: str) -> int:
        """Return the line of a path, or of the nearest existing parent."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


def parse_documents(text: str) -> list[Document]:
    """Return the documents of a YAML (or JSON) text, without empty ones. Never raises: see `Document.problems`."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return [
            Document(None, [Problem("", f"is longer than {MAX_BYTES:,} bytes, the maximum that the API server stores")])
        ]
    found: list[Document] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            root = loader.get_node()
            if root is not None and not _is_empty(root):
                found.append(_Reader(loader).read(root))
    except yaml.YAMLError as error:
        found.append(Document(None, [_yaml_problem(error)]))
    except (RecursionError, ValueError) as error:  # ValueError: characters and numbers that YAML's reader gives up on
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        found.append(Document(None, [Problem("", f"can't be read as YAML: {reason}")]))
    return found or [Document(None, [Problem("", f"contains no {KIND}")])]


def validate_text(text: str, also: Check | None = None) -> list[tuple[TrainingJob | None, list[Problem]]]:
    """Parse and validate each document of a text; each problem has its line.

    Args:
        text: YAML or JSON.
        also: What else a job without problems is asked for, where more is known than the document.
    """
    found = []
    for document in parse_documents(text):
        job, problems = (None, document.problems) if document.problems else validate(document.data)
        if job is not None and also is not None:
            problems = also(job)
            job = None if problems else job
        placed = [problem if problem.line else _with_line(problem, document) for problem in problems]
        found.append((job, sorted(placed, key=lambda problem: problem.line)))
    return found


def _with_line(problem: Problem, document: Document) -> Problem:
    return replace(problem, line=document.line(problem.path))


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "" and node.style is None


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    column = f" (column {mark.column + 1})" if mark else ""
    return Problem("", f"can't be read as YAML: {reason}{column}", line=mark.line + 1 if mark else 0)


def _short(tag: str) -> str:
    """Return a tag as it is written: `!!binary` for YAML's own."""
    return tag.replace("tag:yaml.org,2002:", "!!", 1)


class _Loader(yaml.SafeLoader):
    """Reads scalars as Kubernetes' YAML does: `1e-4` is a number, `y` and `n` are booleans, dates are text."""

    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "float", "int")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class _Reader:
    """Turns one document's nodes into plain data, and notes lines and mistakes on the way."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self.nodes = 0

    def read(self, root: yaml.Node) -> Document:
        return Document(self._value(root, "", 0), self.problems, self.lines)

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.nodes += 1
        self.lines.setdefault(path, node.start_mark.line + 1)
        if depth > _MAX_DEPTH or self.nodes > _MAX_NODES:
            raise RecursionError
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        self._find_duplicates(node, path)
        self.loader.flatten_mapping(node)
        found = {}
        for key, value in node.value:
            name = self._key(key, path)
            where = f"{path}.{name}" if path else name
            self.lines[where] = key.start_mark.line + 1
            found[name] = self._value(value, where, depth + 1)
        return found

    def _find_duplicates(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in seen:
                where = f"{path}.{key.value}" if path else key.value
                self.problems.append(
                    Problem(where, f"duplicate key (first defined on line {seen[key.value]})", line=line)
                )
            seen.setdefault(key.value, line)

    def _key(self, key: yaml.Node, path: str) -> str:
        if isinstance(key, yaml.ScalarNode):
            return str(key.value)
        self.problems.append(Problem(path, "mapping keys must be strings", line=key.start_mark.line + 1))
        return "?"

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        if node.tag.rpartition(":")[2] not in ("null", "bool", "int", "float", "str"):
            message = f"unsupported YAML tag {_short(node.tag)}"
            self.problems.append(Problem(path, message, line=node.start_mark.line + 1))
            return None
        return self.loader.construct_object(node)

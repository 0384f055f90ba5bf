"""Rules of `spec.tracking`."""

from __future__ import annotations

from trainmaster_api.spec.tracking import KINDS

from .rule import Object, Rule


def _one_each(spec: Object) -> bool:
    return all(sum(entry.get(kind) is not None for kind in KINDS) == 1 for entry in spec["tracking"])


def _args_belong(spec: Object) -> bool:
    return all("args" not in entry or "class" in entry for entry in spec["tracking"])


# `class` is a word of CEL, so the API server knows the field under its escaped name
_HAS = ", ".join(f"has(entry.{'__class__' if kind == 'class' else kind})" for kind in KINDS)

TRACKING_RULES: tuple[Rule, ...] = (
    Rule(
        id="tracking-one",
        scope="spec",
        field="tracking",
        reads=("tracking",),
        cel=f"self.tracking.all(entry, [{_HAS}].exists_one(set, set))",
        check=_one_each,
        message=f"each entry of the list sets exactly one of {', '.join(KINDS)}, as in `- mlflow: {{}}`",
    ),
    Rule(
        id="tracking-args",
        scope="spec",
        field="tracking",
        reads=("tracking",),
        cel="self.tracking.all(entry, !has(entry.args) || has(entry.__class__))",
        check=_args_belong,
        message="`args` goes with `class` only: a tracker that we ship has its settings under its own name",
    ),
)

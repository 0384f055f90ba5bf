"""The model of `training.transformers`: drawn from a config, or read from a folder; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from trainmaster_api.references import did_you_mean
from trainmaster_api.spec.own import TransformersModel

from trainmaster_trainer.errors import ConfigurationError

PATH = "transformers.model"
_OF_DATA = {
    "vocab_size": "data.text",
    "pad_token_id": "data.text",
    "num_labels": "data.target",
    "id2label": "data.target",
    "label2id": "data.target",
}


def drawn(spec: TransformersModel, labels: list[str], vocabulary: int, padding: int) -> Any:
    """Return a model with drawn weights.

    Args:
        spec: With a config.
        labels: The classes.
        vocabulary: Number of tokens.
        padding: The token behind the end of a text.

    Raises:
        ConfigurationError: The config has a field that its kind doesn't have, or that the data says.
    """
    fields = dict(spec.config or {})
    kind = fields.pop("model_type", None)
    if kind not in transformers.CONFIG_MAPPING:
        near = did_you_mean(str(kind), list(transformers.CONFIG_MAPPING))
        raise ConfigurationError(
            f"{PATH}.config.model_type: Transformers has no model {kind!r}{near}; it is what config.json calls it, "
            "such as bert"
        )
    known = set(vars(transformers.AutoConfig.for_model(kind))) | set(_OF_DATA)
    problems = [
        f"{PATH}.config.{name}: the config of {kind} has no such field{did_you_mean(name, sorted(known))}"
        for name in fields
        if name not in known
    ]
    problems += [f"{PATH}.config.{name}: {_OF_DATA[name]} says it; remove it" for name in fields if name in _OF_DATA]
    if problems:
        raise ConfigurationError("; ".join(problems[:10]))
    names = _names(labels)
    target = _class(spec)
    try:
        config = transformers.AutoConfig.for_model(kind, **fields, **names, vocab_size=vocabulary, pad_token_id=padding)
        return target.from_config(config) if hasattr(target, "from_config") else target(config)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{PATH}.config: {error}") from None


def read(spec: TransformersModel, folder: Path, labels: list[str]) -> tuple[Any, Any]:
    """Return a model and its tokenizer from a folder; a head for other classes is drawn.

    Raises:
        ConfigurationError: It isn't there, or isn't one of such a model with its tokenizer.
    """
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{PATH}.path: there is no config.json in {folder}; write it with save_pretrained")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = _class(spec).from_pretrained(
            str(folder), local_files_only=True, ignore_mismatched_sizes=True, **_names(labels)
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigurationError(f"{PATH}.path {folder}: {error}") from None
    if tokenizer.pad_token_id is None:
        raise ConfigurationError(f"{PATH}.path {folder}: its tokenizer has no pad_token to fill texts up with")
    return model, tokenizer


def require_room(model: Any, longest: int) -> None:
    """Reject a model that has fewer positions than a text has tokens."""
    most = getattr(model.config, "max_position_embeddings", None)
    if isinstance(most, int) and most < longest:
        raise ConfigurationError(
            f"data.text.maxLength {longest} is more than the {most} positions of the model (max_position_embeddings)"
        )


def _names(labels: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}


def _class(spec: TransformersModel) -> Any:
    found = getattr(transformers, spec.architecture, None)
    if found is None or not hasattr(found, "from_pretrained"):
        known = [name for name in dir(transformers) if name.endswith("ForSequenceClassification")]
        raise ConfigurationError(
            f"{PATH}.class: Transformers has no class {spec.architecture}{did_you_mean(spec.architecture, known)}"
        )
    return found

"""Models: those that we ship, one file each, and references to the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from trainmaster_api.spec.model import ModelPart, shape_problem

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import call, resolve
from trainmaster_trainer.registry import Registry
from trainmaster_trainer.sample import Inputs

MODELS: Registry[Callable[[ModelPart, Inputs, int], nn.Module]] = Registry("model", __name__, "trainmaster.models")


def build_model(part: ModelPart, inputs: Inputs, outputs: int) -> nn.Module:
    """Return the model for what it is called with.

    A class or an entry point is called with `args`, and with `input_shape`, `vocabulary`, `outputs` and `num_classes`
    where its signature names them; the last two are the same number.

    Raises:
        ConfigurationError: The model doesn't fit the data, there is none of that name, or its arguments don't fit.
    """
    if MODELS.is_shipped(part.name) and part.name is not None:
        problem = shape_problem(part, inputs.shape, is_text=bool(inputs.vocabulary))
        if problem is not None:
            raise ConfigurationError(f"model.{problem[0]} {problem[1]}")
        return MODELS.get(part.name, "model.name")(part, inputs, outputs)
    target = resolve(part.reference, "model.class") if part.reference else MODELS.get(part.name or "", "model.name")
    if inspect.isclass(target) and not issubclass(target, nn.Module):
        raise ConfigurationError(f"model {part.label} is not a subclass of torch.nn.Module")
    values: dict[str, Any] = {"input_shape": inputs.shape, "outputs": outputs, "num_classes": outputs}
    if inputs.vocabulary:  # else an argument of that name is the user's own
        values["vocabulary"] = inputs.vocabulary
    found = call(target, "model", part.FAMILY.call, part.args, offered=values)
    if not isinstance(found, nn.Module):
        raise ConfigurationError(f"model {part.label} returned a {type(found).__name__}; expected a torch.nn.Module")
    return found

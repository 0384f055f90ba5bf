"""The models that we ship: readable PyTorch, one file each."""

from __future__ import annotations

import math

from torch import nn
from trainmaster_api.spec.model import Cnn, Mlp, Vit

from trainmaster_trainer.errors import ConfigurationError

from .cnn import build_cnn
from .mlp import build_mlp
from .vit import VisionTransformer

Shape = tuple[int, ...]


def build_model(spec: Mlp | Cnn | Vit, input_shape: Shape, outputs: int) -> nn.Module:
    """The named model for one sample's shape: (features,) or (channels, height, width).

    Raises:
        ConfigurationError: The model doesn't fit the data.
    """
    if isinstance(spec, Mlp):
        return build_mlp(spec.args, math.prod(input_shape), outputs)
    if len(input_shape) != 3:
        raise ConfigurationError(
            f"model {spec.name} needs images, but a row of the data has shape {input_shape}; "
            "use model mlp, or data.source sklearn:digits or images:<folder>"
        )
    channels, height, width = input_shape
    if isinstance(spec, Cnn):
        shortest = min(height, width)
        if shortest < 2 ** len(spec.args.widths):
            raise ConfigurationError(
                f"model.args.widths has {len(spec.args.widths)} blocks and each halves the image, but the images "
                f"have {height}x{width} pixels; at most {int(math.log2(shortest))} blocks fit"
            )
        return build_cnn(spec.args, channels, outputs)
    if height % spec.args.patch or width % spec.args.patch:
        raise ConfigurationError(
            f"model.args.patch {spec.args.patch} does not divide the images' {height}x{width} pixels"
        )
    return VisionTransformer(spec.args, channels, height, width, outputs)

"""Part of `spec.training.data` for images: how a file becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainmaster_api.types import Model, rule_error


class Images(Model):
    """How image files become pixels. By default as a viewer shows them."""

    background: Annotated[str, Field(pattern=r"^(white|black|#[0-9a-fA-F]{6})$", examples=["white", "#808080"])] = (
        "white"
    )
    """Color behind transparent pixels."""
    value_range: Annotated[list[float], Field(min_length=2, max_length=2, examples=[[0, 4095]])] | None = None
    """Values that become black and white in images with more than 8 bits per channel; values outside are clipped.
    Default: 0 and 65535 for 16 bits. Required for 32-bit and floating-point images."""
    nested: bool = False
    """If true, images in deeper folders belong to the class of their first folder. If false, they are an error."""
    check: Literal["headers", "full"] = "headers"
    """What is checked of every file before the first step: its header, or all of it by decoding it once."""

    @model_validator(mode="after")
    def _range_grows(self) -> Self:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise rule_error("valueRange must be two different numbers, the smaller one first")
        return self

"""Settings of torch that are of the whole process, and that code of the user's own may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn

_ATTRIBUTES: tuple[tuple[Any, str], ...] = (
    (cudnn, "enabled"),
    (cudnn, "benchmark"),
    (cudnn, "deterministic"),
    (cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]  # set when the module is loaded
    (cudnn.rnn, "fp32_precision"),
    (cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    (cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    (mkldnn, "enabled"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
)
_CALLS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.math_sdp_enabled, cuda.enable_math_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Give the settings their values back after the block: the next trial in this process begins with the same."""
    attributes = [getattr(owner, name) for owner, name in _ATTRIBUTES]
    calls = [get() for get, _ in _CALLS]
    device = torch.get_default_device()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        if torch.get_default_device() != device:  # even setting it to what it is would slow down every call
            torch.set_default_device(None)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_flush_denormal(False)  # as it is at first; there is no way to read it
        for (_, put), value in zip(_CALLS, calls, strict=True):
            put(value)
        for (owner, name), value in zip(_ATTRIBUTES, attributes, strict=True):
            setattr(owner, name, value)

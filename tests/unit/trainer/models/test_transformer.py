"""The transformer for text: padding changes nothing, places do, and its blocks are those of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from trainmaster_api.spec.model import ModelPart
from trainmaster_trainer.models import build_model
from trainmaster_trainer.models.transformer import Transformer
from trainmaster_trainer.sample import Inputs

LONGEST = 24


def model(seed: int = 0, **args: object) -> Transformer:
    torch.manual_seed(seed)
    part = ModelPart.model_validate({"name": "transformer", "args": {"dim": 16, "depth": 2, "heads": 4, **args}})
    found = build_model(part, Inputs((LONGEST,), vocabulary=50), 3)
    assert isinstance(found, Transformer)
    with torch.no_grad():
        for parameter in found.parameters():  # far from zero, so that a difference shows
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return found.eval()


def padded(text: Tensor, width: int) -> Tensor:
    return nn.functional.pad(text, (0, width - len(text)))


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    net = model()
    texts = [torch.randint(1, 50, (length,)) for length in (1, 5, 11, 24)]
    alone = torch.cat([net(text[None]) for text in texts])
    together = net(torch.stack([padded(text, LONGEST) for text in texts]))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (together.std(dim=0) > 0.01).all()


@torch.no_grad()
def test_places_of_tokens_matter() -> None:
    net = model()
    text = torch.randint(1, 50, (1, 9))
    assert (net(text) - net(text.flip(1))).abs().max() > 0.01


def test_padding_is_never_trained() -> None:
    net = model().train()
    net(torch.tensor([[3, 4, 0, 0], [5, 6, 7, 8]])).square().sum().backward()
    gradient = net.embed.weight.grad
    assert gradient is not None
    assert (gradient[0] == 0).all()
    assert (gradient[3] != 0).any()


@torch.no_grad()
def test_text_without_tokens_is_a_number() -> None:
    assert torch.isfinite(model()(torch.zeros(2, 5, dtype=torch.int64))).all()


@torch.no_grad()
def test_blocks_with_a_mask_are_those_of_torch() -> None:
    net = model()
    block: Any = net.blocks[0]
    peer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    copies = {
        "self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.mlp[0].weight, "linear1.bias": block.mlp[0].bias,
        "linear2.weight": block.mlp[2].weight, "linear2.bias": block.mlp[2].bias,
        "norm1.weight": block.norm_attention.weight, "norm1.bias": block.norm_attention.bias,
        "norm2.weight": block.norm_mlp.weight, "norm2.bias": block.norm_mlp.bias,
    }  # fmt: skip
    peer.load_state_dict(copies)
    x = torch.randn(3, 7, 16)
    is_token = torch.arange(7) < torch.tensor([[7], [4], [1]])
    ours, theirs = block(x, is_token[:, None, None, :]), peer(x, src_key_padding_mask=~is_token)
    torch.testing.assert_close(ours[is_token], theirs[is_token], atol=1e-5, rtol=1e-4)

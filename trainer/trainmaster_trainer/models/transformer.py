"""Transformer encoder for text: tokens, learned positions, pre-norm blocks, mean over tokens that are no padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from trainmaster_api.spec.model import ModelPart, TransformerArgs

from trainmaster_trainer.sample import Inputs

from .vit import Block


class Transformer(nn.Module):
    """(batch, tokens) of int64 -> (batch, outputs); token 0 is padding and changes nothing.

    Args:
        args: Its sizes.
        vocabulary: Number of tokens, padding included.
        longest: Number of tokens of the longest sample.
        outputs: Number of outputs.
    """

    def __init__(self, args: TransformerArgs, vocabulary: int, longest: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, args.dim, padding_idx=0)
        self.position = nn.Parameter(torch.empty(1, longest, args.dim))
        nn.init.trunc_normal_(self.embed.weight, std=0.02)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.zeros_(self.embed.weight[0].data)
        self.dropout = nn.Dropout(args.dropout)
        self.blocks = nn.ModuleList(Block(args) for _ in range(args.depth))
        self.norm = nn.LayerNorm(args.dim)
        self.head = nn.Linear(args.dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of a batch of texts."""
        is_token = x != 0
        # the first place is always looked at: a softmax over nothing would be NaN, and a text begins with a token
        mask = torch.cat([torch.ones_like(is_token[:, :1]), is_token[:, 1:]], dim=1)[:, None, None, :]
        tokens = self.dropout(self.embed(x) + self.position[:, : x.shape[1]])
        for block in self.blocks:
            tokens = block(tokens, mask)
        weight = is_token.unsqueeze(2).to(tokens.dtype)
        mean = (self.norm(tokens) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return self.head(mean)  # type: ignore[no-any-return]


def build(part: ModelPart, inputs: Inputs, outputs: int) -> Transformer:
    """Return it for texts of at most `inputs.shape[0]` tokens."""
    return Transformer(part.typed_args(TransformerArgs), inputs.vocabulary, inputs.shape[0], outputs)

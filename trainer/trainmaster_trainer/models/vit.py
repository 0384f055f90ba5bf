"""Vision transformer: patches, learned positions, pre-norm blocks, mean over tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.model import BlockArgs, ModelPart, VitArgs

from trainmaster_trainer.sample import Inputs


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual; for every transformer that we ship."""

    def __init__(self, args: BlockArgs) -> None:
        super().__init__()
        hidden = int(args.dim * args.mlp_ratio)
        self.heads = args.heads
        self.dropout = args.dropout
        self.norm_attention = nn.LayerNorm(args.dim)
        self.qkv = nn.Linear(args.dim, 3 * args.dim)
        self.out = nn.Linear(args.dim, args.dim)
        self.norm_mlp = nn.LayerNorm(args.dim)
        self.mlp = nn.Sequential(
            nn.Linear(args.dim, hidden), nn.GELU(), nn.Linear(hidden, args.dim), nn.Dropout(args.dropout)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens after attention and MLP.

        Args:
            x: Of (batch, tokens, dim).
            mask: Which tokens others may look at, boolean of (batch, 1, 1, tokens); None: all.
        """
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp(self.norm_mlp(x))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """(batch, channels, height, width) -> (batch, outputs)."""

    def __init__(self, args: VitArgs, channels: int, height: int, width: int, outputs: int) -> None:
        super().__init__()
        tokens = (height // args.patch) * (width // args.patch)
        self.embed = nn.Conv2d(channels, args.dim, kernel_size=args.patch, stride=args.patch)
        self.position = nn.Parameter(torch.empty(1, tokens, args.dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = nn.Sequential(*(Block(args) for _ in range(args.depth)))
        self.norm = nn.LayerNorm(args.dim)
        self.head = nn.Linear(args.dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of a batch of images."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))  # type: ignore[no-any-return]


def build(part: ModelPart, inputs: Inputs, outputs: int) -> VisionTransformer:
    """Return it for images of (channels, height, width)."""
    channels, height, width = inputs.shape
    return VisionTransformer(part.typed_args(VitArgs), channels, height, width, outputs)

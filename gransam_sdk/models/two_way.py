"""SAM's two-way transformer in its plain form: the reference that exported graphs are compared with.

Source: Kirillov et al. 2023, Segment Anything, fig. 14; names and order of operations as in the segment-anything
package (``segment_anything/modeling/transformer.py``), to which ``tests/models`` compares it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the embedding's.

    Args:
        width: d, width of queries, keys and values.
        heads: Number of heads.
        downsample: d / inner width.
    """

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.inner = width // downsample
        self.heads = heads
        self.q_proj = nn.Linear(width, self.inner)
        self.k_proj = nn.Linear(width, self.inner)
        self.v_proj = nn.Linear(width, self.inner)
        self.out_proj = nn.Linear(self.inner, width)

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.inner // self.heads

    def split(self, x: Tensor) -> Tensor:
        """(b,t,inner) to (b,heads,t,head_width)."""
        out: Tensor = x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
        return out

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b,tq,d), (b,tk,d), (b,tk,d) to (b,tq,d)."""
        queries, keys, values = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(self.head_width)
        mixed = scores.softmax(-1) @ values
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        return out


class TokenMLP(nn.Module):
    """Two linear layers with ReLU between them, on tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(b,t,d) to (b,t,d)."""
        out: Tensor = self.lin2(F.relu(self.lin1(x)))
        return out


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, tokens to image, MLP, image to tokens; the first block skips the token encoding."""

    def __init__(self, width: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, downsample=2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TokenMLP(width, hidden)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, downsample=2)
        self.norm4 = nn.LayerNorm(width)

    def attend_self(self, queries: Tensor, query_pe: Tensor) -> Tensor:
        """The block's first step, on tokens (b,t,d) alone."""
        if self.first:
            return self.norm1(self.self_attn(queries, queries, queries))  # type: ignore[no-any-return]
        q = queries + query_pe
        return self.norm1(queries + self.self_attn(q, q, queries))  # type: ignore[no-any-return]

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (b,t,d) and image (b,e·e,d), each with its positional encoding; both updated."""
        queries = self.attend_self(queries, query_pe)
        attended = self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries)
        return queries, self.norm4(keys + attended)


class TwoWayTransformer(nn.Module):
    """SAM's mask-decoder transformer.

    Args:
        depth: Blocks.
        width: d, token width.
        heads: Attention heads.
        hidden: Width of the token MLPs.
    """

    def __init__(self, depth: int = 2, width: int = 256, heads: int = 8, hidden: int = 1024) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(width, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, keys: Tensor, key_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the transformer.

        Args:
            keys: (b,e·e,d) image embedding.
            key_pe: (1 or b,e·e,d) its positional encoding.
            tokens: (b,t,d) prompt and output tokens; they are their own positional encoding.

        Returns:
            Tokens (b,t,d) and image (b,e·e,d) after attention.
        """
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + key_pe, keys)
        return self.norm_final_attn(queries + attended), keys


def grid_positions(side: int) -> Tensor:
    """(side·side,2) XY centres of a grid over [0,1]², row by row."""
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)

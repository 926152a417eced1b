"""The mask decoder of nano and of SAM's checkpoints as one thing: what both forms of the graphs are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gransam_sdk.models.nano import Nano
from gransam_sdk.models.segment_anything import WIDTH
from gransam_sdk.models.two_way import TwoWayTransformer

FOREGROUND = 1
"""Of segment-anything's four point embeddings: background point, foreground point, two corners of a box."""
OUTPUT_TOKENS = 5
"""Predicted IoU and four masks; nothing reads the point and the padding after the last attention."""
POINT = 5
"""Row of the point among the tokens; the padding follows."""


class DecoderParts(nn.Module):
    """Prompt encoder and mask decoder.

    Args:
        side: e, side of the embedding.
        transformer: The plain transformer.
        key_pe: (N,d) positional encoding of the embedding's cells.
        no_mask: (1,d) what the embedding gets besides.
        fixed_tokens: Rows of the seven tokens before a point's position is added: IoU, four masks, point, padding.
        gaussian: (2,d/2) frequencies of positions.
        point_shift: What is added to a point's XY in [0,1].
        hypernetworks: Four MLPs, mask token to weights of the mask (c2).
        iou_head: IoU token to four predicted IoUs.
        first: Transposed convolution d to c1.
        norm: Over c1 channels; anything with ``weight``, ``bias`` and ``eps``.
        second: Transposed convolution c1 to c2.
        skips: Whether the photo's stride-8 and stride-4 features join the upscaling.
    """

    key_pe: Tensor
    fixed_tokens: Tensor
    gaussian: Tensor

    def __init__(
        self,
        *,
        side: int,
        transformer: TwoWayTransformer,
        key_pe: Tensor,
        no_mask: Tensor,
        fixed_tokens: Sequence[Tensor],
        gaussian: Tensor,
        point_shift: float,
        hypernetworks: nn.ModuleList,
        iou_head: nn.Module,
        first: nn.ConvTranspose2d,
        norm: Any,  # the package's own norm has no types
        second: nn.ConvTranspose2d,
        skips: bool,
    ) -> None:
        super().__init__()
        self.side = side
        self.transformer = transformer
        self.no_mask = no_mask
        self.point_shift = point_shift
        self.hypernetworks = hypernetworks
        self.iou_head = iou_head
        self.first, self.norm, self.second = first, norm, second
        self.skips = skips
        self.register_buffer("key_pe", key_pe)
        self.register_buffer("fixed_tokens", torch.cat(list(fixed_tokens)).detach())
        self.register_buffer("gaussian", gaussian)

    def prompt_tokens(self, points: Tensor) -> Tensor:
        """(g,2) XY in [0,1] of the square to seven tokens (g,7,d): IoU, four masks, point, padding."""
        angle = (2.0 * (points + self.point_shift) - 1.0) @ self.gaussian * (2.0 * math.pi)
        # Only the point's own row depends on the point; adding it where it belongs needs no copies of the others.
        # Made where the points are: a GPU's graph cannot hold a copy from the host.
        at_point = (torch.arange(POINT + 2, device=points.device) == POINT).to(points.dtype)[:, None]
        return self.fixed_tokens + at_point * torch.cat([angle.sin(), angle.cos()], dim=-1)[:, None]

    def hyper(self, tokens: Tensor) -> Tensor:
        """Mask tokens (g,4,d) to per-mask weights (g,4,c2)."""
        return torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(self.hypernetworks)], dim=1)


def nano_parts(nano: Nano, side: int) -> DecoderParts:
    """Of the embedded segmenter.

    Args:
        nano: With its weights.
        side: s, a multiple of 32.
    """
    prompt, decoder, cells = nano.prompt_encoder, nano.mask_decoder, side // 16
    return DecoderParts(
        side=cells,
        transformer=decoder.transformer,
        key_pe=nano.grid_encoding(cells),
        no_mask=prompt.no_mask.weight,
        fixed_tokens=[decoder.output_tokens(), prompt.point.weight, prompt.not_a_point.weight],
        gaussian=prompt.gaussian,
        point_shift=0.0,
        hypernetworks=decoder.hypernetworks,
        iou_head=decoder.iou_head,
        first=decoder.upscale1,
        norm=decoder.norm1,
        second=decoder.upscale2,
        skips=True,
    ).eval()


def sam_parts(sam: nn.Module) -> DecoderParts:
    """Of segment-anything's models.

    SAM adds half a pixel to points, and a padding token to points without a box.

    Args:
        sam: ``models.segment_anything.build_sam``'s module with its weights.
    """
    parts: Any = sam  # the package has no types
    prompt, decoder = parts.prompt_encoder, parts.mask_decoder
    first, norm, _, second, _ = decoder.output_upscaling
    embedded = [prompt.point_embeddings[FOREGROUND].weight, prompt.not_a_point_embed.weight]
    return DecoderParts(
        side=int(prompt.image_embedding_size[0]),
        transformer=_ours(decoder.transformer),
        key_pe=prompt.get_dense_pe()[0].flatten(1).T.contiguous(),
        no_mask=prompt.no_mask_embed.weight,
        fixed_tokens=[decoder.iou_token.weight, decoder.mask_tokens.weight, *embedded],
        gaussian=prompt.pe_layer.positional_encoding_gaussian_matrix,
        point_shift=0.5 / int(prompt.input_image_size[0]),
        hypernetworks=decoder.output_hypernetworks_mlps,
        iou_head=decoder.iou_prediction_head,
        first=first,
        norm=norm,
        second=second,
        skips=False,
    ).eval()


def _ours(transformer: nn.Module) -> TwoWayTransformer:
    """The package's two-way transformer as ours, which has the same keys."""
    weights = transformer.state_dict()
    ours = TwoWayTransformer(width=WIDTH, heads=8, hidden=len(weights["layers.0.mlp.lin1.bias"]))
    ours.load_state_dict(weights)
    return ours.eval().requires_grad_(False)

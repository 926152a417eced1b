"""Image, prompt and mask graphs of segment-anything's models (SAM ViT-B, L, H and MobileSAM), decoder in low-rank form.

The photo lies at the top left of the square, zeros right and below; points are XY in [0,1] of the square. Axes and
names are the contract of ``docs/bundle-format.md``; l = 4e, f = d = 256.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gransam_sdk.errors import InputError
from gransam_sdk.models.segment_anything import WIDTH
from gransam_sdk.models.tiny_vit import ConvNorm
from gransam_sdk.models.two_way import TwoWayTransformer
from gransam_sdk.types import PointGrid

from .graphs import LATTICE_OFFSET
from .low_rank import Hoisted, ImageTokens, LowRankTransformer
from .onnx_file import export_graph
from .upscale import Upscale

FOREGROUND = 1
"""Of the package's four point embeddings: background point, foreground point, two corners of a box."""


class SamHoisted(NamedTuple):
    """What the image graph computes once a photo: ``low_rank.Hoisted`` and what masks and features need."""

    h_k1: Tensor
    h_v1: Tensor
    h_q1: Tensor
    h_k2: Tensor
    h_v2: Tensor
    h_q2: Tensor
    h_k3: Tensor
    h_v3: Tensor
    h_cross1: Tensor
    h_cross21: Tensor
    h_cross22: Tensor
    h_norms: Tensor
    h_up: Tensor  # (b,N,4,64) first step of upscaling, the photo's share
    h_features: Tensor  # (b,N,256) dense features: the embedding


PROMPT_OUTPUTS = ("tokens", "iou", "lattice", "features", "m_scale", "m_mix", "m_rows", "m_hyper")
STATE = PROMPT_OUTPUTS[4:]


class SamDecoder(nn.Module):
    """Prompt encoder and mask decoder: the same in all of SAM's checkpoints.

    Args:
        sam: ``models.segment_anything.build_sam``'s module with its weights.
    """

    fixed_tokens: Tensor
    gaussian: Tensor

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        parts: Any = sam  # the package has no types
        prompt, decoder = parts.prompt_encoder, parts.mask_decoder
        self.input_side = int(prompt.input_image_size[0])
        self.side = int(prompt.image_embedding_size[0])
        position = prompt.get_dense_pe()[0].flatten(1).T.contiguous()  # (N,256)
        self.transformer = LowRankTransformer(_ours(decoder.transformer), position)
        self.hypernetworks: nn.ModuleList = decoder.output_hypernetworks_mlps
        self.iou_head: nn.Module = decoder.iou_prediction_head
        first, norm, _, second, _ = decoder.output_upscaling
        beta = self.transformer.second.norm4.bias
        self.upscale = Upscale(first, norm.weight, norm.bias, norm.eps, second, beta, LATTICE_OFFSET)
        embedded = [prompt.point_embeddings[FOREGROUND].weight, prompt.not_a_point_embed.weight]
        fixed = [decoder.iou_token.weight, decoder.mask_tokens.weight, *embedded]
        self.register_buffer("fixed_tokens", torch.cat(fixed).detach())
        self.register_buffer("gaussian", prompt.pe_layer.positional_encoding_gaussian_matrix)
        self.no_mask: Tensor = prompt.no_mask_embed.weight

    def prompt_tokens(self, points: Tensor) -> Tensor:
        """(g,2) XY in [0,1] of the square to seven tokens (g,7,256): IoU, four masks, point, padding.

        SAM adds half a pixel to points, and a padding token to points without a box.
        """
        shifted = points + 0.5 / self.input_side
        angle = (2.0 * shifted - 1.0) @ self.gaussian * (2.0 * math.pi)
        at_point = torch.tensor([0.0, 0, 0, 0, 0, 1, 0])[:, None]
        return self.fixed_tokens + at_point * torch.cat([angle.sin(), angle.cos()], dim=-1)[:, None]

    def hyper(self, tokens: Tensor) -> Tensor:
        """Mask tokens (g,4,256) to per-mask weights (g,4,32)."""
        return torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(self.hypernetworks)], dim=1)


class SamImageGraph(nn.Module):
    """Photo to hoisted tensors."""

    def __init__(self, encoder: nn.Module, decoder: SamDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> SamHoisted:
        """(b,3,s,s) normalised photo, zeros right and below, to ``SamHoisted``."""
        return self.hoist(self.encoder(image))

    def hoist(self, embedding: Tensor) -> SamHoisted:
        """(b,256,e,e) image embedding to ``SamHoisted``."""
        features = embedding.flatten(2).transpose(1, 2)
        hoisted, shared = self.decoder.transformer.hoist(features + self.decoder.no_mask)
        return SamHoisted(*hoisted, self.decoder.upscale.hoist(shared), features)


class SamPromptGraph(nn.Module):
    """Points to tokens, predicted IoU, lattice, pooled features and the state the mask graph needs."""

    def __init__(self, decoder: SamDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        h_k1: Tensor,
        h_v1: Tensor,
        h_q1: Tensor,
        h_k2: Tensor,
        h_v2: Tensor,
        h_q2: Tensor,
        h_k3: Tensor,
        h_v3: Tensor,
        h_cross1: Tensor,
        h_cross21: Tensor,
        h_cross22: Tensor,
        h_norms: Tensor,
        h_up: Tensor,
        h_features: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to ``PROMPT_OUTPUTS``."""
        decoder = self.decoder
        hoisted = Hoisted(h_k1, h_v1, h_q1, h_k2, h_v2, h_q2, h_k3, h_v3, h_cross1, h_cross21, h_cross22, h_norms)
        queries, image = decoder.transformer.decode(hoisted, decoder.prompt_tokens(points))
        tokens = queries[:, 1:5]
        hyper = decoder.hyper(tokens)
        lattice = decoder.upscale.lattice(h_up, image, hyper, None)
        weight = lattice.sigmoid()
        features = weight @ h_features / (weight.sum(-1, keepdim=True) + 1e-4)
        iou: Tensor = decoder.iou_head(queries[:, 0])
        return tokens, iou, lattice.unflatten(2, (decoder.side, decoder.side)), features, *image, hyper


class SamMaskGraph(nn.Module):
    """Low-res logits of chosen masks."""

    def __init__(self, decoder: SamDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, h_up: Tensor, m_scale: Tensor, m_mix: Tensor, m_rows: Tensor, m_hyper: Tensor, choice: Tensor
    ) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        one_hot = (choice[:, None] == torch.arange(4)).to(m_hyper.dtype)[:, None]  # (n,1,4)
        chosen = (one_hot @ m_hyper).squeeze(1)  # (n,32)
        return self.decoder.upscale.low_res(h_up, ImageTokens(m_scale, m_mix, m_rows), chosen, None)


def deployed_sam(sam: nn.Module) -> nn.Module:
    """Folds BatchNorm into convolutions and rounds weights to 16 bits, in place: what the graphs must equal.

    The random frequencies of positions stay as they are: they are few, and rounding them would move every point.

    Raises:
        InputError: A weight is too large for 16 bits.
    """
    for module in sam.modules():
        if isinstance(module, ConvNorm):
            conv, norm = cast("nn.Conv2d", module.c), cast("nn.BatchNorm2d", module.bn)
            module.c = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            module.bn = nn.Identity()
    for name, parameter in sam.named_parameters():
        parameter.data = parameter.data.half().float()
        if not parameter.isfinite().all():
            raise InputError(f"weight {name}", expected="numbers below 65,520", found="larger ones")
    return sam.eval().requires_grad_(False)


def sam_graphs(sam: nn.Module) -> dict[str, bytes]:
    """Exports the three graphs that need no head.

    Args:
        sam: ``deployed_sam``.

    Returns:
        ONNX bytes by graph name: image, prompt, mask.
    """
    decoder = SamDecoder(sam).eval()
    image_graph = SamImageGraph(sam.get_submodule("image_encoder"), decoder).eval()
    prompt_graph, mask_graph = SamPromptGraph(decoder).eval(), SamMaskGraph(decoder).eval()
    # Real numbers in the example tensors: the exporter only looks at their shapes, a reader may look at their values.
    image = torch.linspace(-1, 1, 2 * 3 * decoder.input_side**2).reshape(2, 3, decoder.input_side, -1)
    embedding = torch.linspace(-1, 1, WIDTH * decoder.side**2).sin().reshape(1, WIDTH, decoder.side, -1)
    points = torch.from_numpy(PointGrid(per_side=2).points())
    with torch.no_grad():
        hoisted = {name: value[0].clone() for name, value in image_graph.hoist(embedding)._asdict().items()}
        prompt_inputs = hoisted | {"points": points}
        outputs = dict(zip(PROMPT_OUTPUTS, prompt_graph(*prompt_inputs.values()), strict=True))
    mask_inputs = {"h_up": hoisted["h_up"]} | {name: outputs[name].clone() for name in STATE}
    mask_inputs["choice"] = torch.arange(len(points))
    return {
        "image": export_graph(image_graph, {"image": image}, SamHoisted._fields, "b", fold=True),
        "prompt": export_graph(prompt_graph, prompt_inputs, PROMPT_OUTPUTS, "g", fold=True),
        "mask": export_graph(mask_graph, mask_inputs, ("logits",), "n", fold=True),
    }


def _ours(transformer: nn.Module) -> TwoWayTransformer:
    """The package's two-way transformer as ours, which has the same keys."""
    weights = transformer.state_dict()
    ours = TwoWayTransformer(width=WIDTH, heads=8, hidden=len(weights["layers.0.mlp.lin1.bias"]))
    ours.load_state_dict(weights)
    return ours.eval().requires_grad_(False)

"""A Stable Diffusion pipeline of a few thousand random weights, saved as a real one is: pictures of 16 x 16."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

SIDE = 16


def write_tiny_pipeline(folder: Path, *, safety: float | None = None, safetensors: bool = True) -> Path:
    """Writes the pipeline.

    Args:
        folder: Where to.
        safety: None leaves the safety checker out; else its threshold: 2 lets every picture pass, -2 none.
        safetensors: False writes pickles.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder, tokenizer = _text(folder.with_name(f"{folder.name}-vocabulary"))
        checker, extractor = (None, None) if safety is None else _checker(safety)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=SIDE,
            ),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=SIDE // 2,
                layers_per_block=1,
                block_out_channels=(8, 16),
                norm_num_groups=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=4,
            ),
            scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
            safety_checker=checker,
            feature_extractor=extractor,
            requires_safety_checker=safety is not None,
        )
    pipeline.save_pretrained(folder, safe_serialization=safetensors)
    return folder


def _text(folder: Path):  # type: ignore[no-untyped-def]
    """A CLIP text encoder, and a tokenizer that knows letters and the word "of"."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = list(string.ascii_lowercase)
    words = [*letters, *(f"{letter}</w>" for letter in letters), "of</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\no f</w>\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32)
    config = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=len(words),
        max_position_embeddings=32,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return CLIPTextModel(config), tokenizer


def _checker(threshold: float):  # type: ignore[no-untyped-def]
    """A safety checker that compares cosines, -1 to 1, with the threshold."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = {**small, "image_size": SIDE, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=small, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(2.0)
    size = {"height": SIDE, "width": SIDE}
    return checker, CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)

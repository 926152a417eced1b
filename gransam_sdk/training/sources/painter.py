"""A text-to-image pipeline, loaded once: prompts and seeds in, pictures out, as many at a time as memory allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import DeviceError, EnvironmentFault, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BATCH = 16
_GIB_A_PICTURE = 2.0
"""Free memory that ``auto`` asks for each picture of a batch; Stable Diffusion v1-4 in 16 bits needs less."""

Log = Callable[[str], None]


class Painter:
    """Makes pictures with a pipeline.

    Args:
        pipeline: A diffusers text-to-image pipeline, on its device.
        batch: Pictures to make at a time, from 1; halved for good whenever memory runs out.
        commit: What the model's revision resolved to on the hub; None where that is not known.
        dtype: The type of its weights, such as ``float32``.
        log: Told when the batch shrinks.

    Attributes:
        made_with: What else decides how a picture comes out, as JSON values for its provenance.
    """

    def __init__(self, pipeline: Any, *, batch: int, commit: str | None, dtype: str, log: Log) -> None:
        self.batch, self.commit = batch, commit
        self.made_with = {
            "commit": commit,
            "pipeline": type(pipeline).__name__,
            "dtype": dtype,
            "diffusers": version("diffusers"),
            "torch": version("torch"),
        }
        self._pipeline, self._log = pipeline, log

    def paint(self, prompt: str, seeds: Sequence[int], *, steps: int, guidance: float) -> list[Image | None]:
        """One picture a seed.

        Every picture's noise is drawn on the CPU by a generator of its own, so neither the batch nor the device
        changes what a seed starts from.

        Args:
            prompt: The same for all.
            seeds: One a picture.
            steps: Denoising steps.
            guidance: Weight of the prompt (classifier-free guidance).

        Returns:
            RGB pictures in the order of the seeds; None for one that the model's safety checker blanked, or that is
            black all over.

        Raises:
            EnvironmentFault: Not even one picture at a time fits into memory.
        """
        pictures: list[Image | None] = []
        while len(pictures) < len(seeds):
            some = seeds[len(pictures) : len(pictures) + self.batch]
            painted = self._try(prompt, some, steps, guidance)
            if painted is None:
                self._shrink(len(some))
            else:
                pictures += painted
        return pictures

    def _try(self, prompt: str, seeds: Sequence[int], steps: int, guidance: float) -> list[Image | None] | None:
        """The pictures, or None if memory ran out; by then the error and what it held on to are gone."""
        try:
            made = self._pipeline(
                prompt=[prompt] * len(seeds),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                guidance_scale=guidance,
            )
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return None
        flags = getattr(made, "nsfw_content_detected", None) or [False] * len(seeds)
        pictures = [picture.convert("RGB") for picture in made.images]
        return [
            None if flag or picture.getbbox() is None else picture
            for picture, flag in zip(pictures, flags, strict=True)
        ]

    def _shrink(self, tried: int) -> None:
        if tried == 1:
            raise EnvironmentFault(
                "making a picture",
                expected="memory for one picture at a time",
                found="out of memory",
                do="stop other programs on the device, take a smaller --model, or use --device cpu",
            )
        self.batch = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._log(f"out of memory with {tried} pictures at a time: going on with {self.batch}")


def load_painter(model: str, revision: str | None, *, device: str, batch: int | None, log: Log) -> Painter:
    """Loads a pipeline; its weights must be in safetensors files, and no code of the model's is ever run.

    Args:
        model: Name on the hub, or a local folder in diffusers' layout.
        revision: Branch, tag or commit on the hub; None is its default branch.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch: Pictures at a time; None goes by free memory.
        log: Told what the user should know.

    Raises:
        InputError: No such word for a device.
        DeviceError: The device is not there.
        EnvironmentFault: The model cannot be had, is not usable, or does not fit into memory.
    """
    chosen = choose_device(device)
    if chosen == "cpu":
        log("on the CPU one picture takes minutes where a GPU takes seconds; what is made is kept if you stop")
    dtype = torch.float32 if chosen == "cpu" else torch.float16
    pipeline = _load(model, revision, chosen, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return Painter(
        pipeline,
        batch=batch or _batch_for(chosen),
        commit=None if Path(model).is_dir() else _commit_of(model, revision),
        dtype=str(dtype).removeprefix("torch."),
        log=log,
    )


def choose_device(device: str) -> str:
    """The torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is ``cuda`` where torch has it.

    Raises:
        InputError: Another word.
        DeviceError: The device is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise InputError("device", expected="auto, cpu, cuda or cuda:N", found=repr(device))
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device != "cpu" and int(device.partition(":")[2] or 0) >= there:
        raise DeviceError(
            f"device {device}",
            expected="a CUDA device that torch can use",
            found=f"{there} of them, with torch {torch.__version__}",
            do="install a torch built for your driver, or use --device cpu",
        )
    return device


def _load(model: str, revision: str | None, device: str, dtype: torch.dtype) -> Any:
    try:
        from diffusers import AutoPipelineForText2Image
    except (ImportError, RuntimeError) as error:  # the second is what its lazy imports make of the first
        raise EnvironmentFault(
            "diffusers",
            expected="diffusers, transformers and accelerate that fit together",
            found=_shorten(error),
            do='pip install --upgrade "gransam-sdk[train]"',
        ) from error
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(
            model, revision=revision, use_safetensors=True, dtype=dtype
        )
        return pipeline.to(device)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"model {model}" + (f", revision {revision}" if revision else ""),
            expected="a text-to-image model in diffusers' layout with safetensors weights, local or on the hub",
            found=_shorten(error),
            do="check the name and the connection; without one, give --model a local folder, or set HF_HUB_OFFLINE=1 "
            "if the model was fetched before",
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise EnvironmentFault(
            f"model {model}",
            expected=f"memory for its weights on {device}",
            found="out of memory",
            do="stop other programs on the device, take a smaller --model, or use --device cpu",
        ) from error


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _commit_of(model: str, revision: str | None) -> str | None:
    """The commit that was just loaded, read off the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def _batch_for(device: str) -> int:
    """Pictures at a time for the memory that is free; one on a CPU, where more are no faster."""
    if device == "cpu":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_BATCH, int(free / 2**30 / _GIB_A_PICTURE)))


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA's has a type of its own, the CPU allocator's only its words."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)

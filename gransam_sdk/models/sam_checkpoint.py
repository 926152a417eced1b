"""Official SAM and MobileSAM checkpoints: a pickled state dict, read without running any of it.

Everything is checked against the architecture's own keys and shapes before a module is built; nothing is renamed,
stripped or left at its initial value.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from .segment_anything import ARCHITECTURES, build_sam
from .tiny_vit import CLASSIFIER, TinyVitShape

ZIP_START = b"PK\x03\x04"
NAMED = 3
"""Keys that an error names before it counts the rest."""

Layout = Mapping[str, tuple[int, ...]]


def read_sam_checkpoint(path: Path, arch: str) -> nn.Module:
    """Reads a checkpoint into the architecture's module.

    Args:
        path: A state dict as ``torch.save`` wrote it (``sam_vit_b_01ec64.pth``, ``mobile_sam.pt``, ...), in any float
            width. MobileSAM's file holds ``unused_keys`` as well.
        arch: A name in ``ARCHITECTURES``.

    Returns:
        The module in evaluation mode, float32, without gradients; it owns its weights, the file may go.

    Raises:
        InputError: The file is missing, damaged, holds more than tensors, or is not a checkpoint of that architecture.
        MissingExtraError: segment-anything is not installed.
    """
    expected = read_layout(arch)
    tensors = _read_tensors(path, arch)
    unused = unused_keys(arch)
    if tensors.keys() & unused.keys():
        expected = {**expected, **unused}
    _check_keys(path, arch, tensors, expected)
    _check_tensors(path, tensors, expected)
    sam = build_sam(arch)
    sam.load_state_dict({name: value for name, value in tensors.items() if name not in unused})
    return sam


def read_layout(arch: str) -> dict[str, tuple[int, ...]]:
    """Shapes by key of an architecture's parameters and buffers, built without memory.

    Raises:
        InputError: There is no architecture of that name.
    """
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_sam(arch).state_dict().items()}


def unused_keys(arch: str) -> dict[str, tuple[int, ...]]:
    """Shapes by key of what the official file holds and the module does not: MobileSAM's ImageNet classifier."""
    if not isinstance(ARCHITECTURES[arch], TinyVitShape):
        return {}
    return {f"image_encoder.{name}": shape for name, shape in CLASSIFIER.items()}


def _read_tensors(path: Path, arch: str) -> dict[str, Tensor]:
    """The file's dict of tensors, mapped rather than read where its format allows."""
    try:
        with path.open("rb") as file:
            in_zip = file.read(len(ZIP_START)) == ZIP_START
        if in_zip and not zipfile.is_zipfile(path):
            raise _refusal(path, arch, "a file that is cut off: its directory, which comes last, is missing")
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=in_zip)
    except InputError:
        raise
    except Exception as error:  # torch, pickle and zip readers raise a dozen kinds for damaged files
        raise _refusal(path, arch, _describe(error)) from error
    if not isinstance(found, dict):
        raise _refusal(path, arch, f"one {type(found).__name__}")
    if others := [name for name, value in found.items() if not (isinstance(name, str) and isinstance(value, Tensor))]:
        raise _refusal(path, arch, f"a dict in which {_name(map(repr, others))} is no tensor")
    return found


def _refusal(path: Path, arch: str, found: str) -> InputError:
    return InputError(
        f"checkpoint {path}",
        expected=f"the state dict of {arch} as torch.save wrote it: tensors by key, nothing else",
        found=found,
        do="get the official file again, and compare its size and sha256 with the published ones",
    )


def _describe(error: Exception) -> str:
    """What a failed read says of the file, without torch's advice to turn the protection off."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, pickle.UnpicklingError) and (name := re.search(r"GLOBAL (\S+)", str(error))):
        return f"a pickle that calls {name[1].rstrip('.')}; it was not run"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _check_keys(path: Path, arch: str, tensors: Mapping[str, Tensor], expected: Layout) -> None:
    """Keys and shapes agree."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    misshapen = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    if not (missing or unexpected or misshapen):
        return
    if other := _recognise(shapes):
        found, do = f"the checkpoint of {other}", f"ask for {other}, or give the checkpoint of {arch}"
    else:
        faults = {"missing": missing, "not of this model": unexpected, "of another shape": misshapen}
        found = "; ".join(f"{len(names)} {fault}: {_name(names)}" for fault, names in faults.items() if names)
        do = "give the official checkpoint; a fine-tuned one needs the official keys, without prefix or wrapper"
    raise InputError(
        f"checkpoint {path}", expected=f"the {len(expected)} keys and shapes of {arch}", found=found, do=do
    )


def _recognise(shapes: Layout) -> str | None:
    """The architecture whose checkpoint has exactly these shapes."""
    for arch in ARCHITECTURES:
        layout, unused = read_layout(arch), unused_keys(arch)
        if shapes in (layout, {**layout, **unused}):
            return arch
    return None


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Layout) -> None:
    """Every tensor is dense, holds numbers of the kind its key asks for, and all of them are finite."""
    for name in expected:
        value = tensors[name]
        counter = name.endswith("num_batches_tracked")
        dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not dense or (value.dtype != torch.int64 if counter else not value.dtype.is_floating_point):
            found = f"{value.layout} {value.dtype} on {value.device}".replace("torch.", "")
        elif not value.isfinite().all():
            found = "infinite or not a number"
        else:
            continue
        wanted = "dense int64" if counter else "dense, floating point, finite"
        raise InputError(f"checkpoint {path}: {name}", expected=wanted, found=found, do="get the official file again")


def _name(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more

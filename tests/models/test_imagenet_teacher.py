"""The teacher's weights fit, and it knows what is on real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from gransam_sdk.errors import InputError
from gransam_sdk.models.imagenet_teacher import BLOCKS, Teacher, explained, load_teacher
from gransam_sdk.models.nano import ImageEncoder

CATS, PLANES = range(282, 287), (405,)
"""ImageNet's classes, counted from 1: tabby to Egyptian cat, and airliner."""


def read(path: Path) -> torch.Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB").resize((224, 224)), np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1) / 127.5 - 1)


@pytest.mark.shared
def test_it_names_real_pictures(shared: Path) -> None:
    teacher = load_teacher(shared / "models/mobilenetv2-imagenet.safetensors")
    for name, classes in (("cat", CATS), ("aeroplane", PLANES)):
        pictures = torch.stack([read(path) for path in sorted((shared / "data/web20" / name).iterdir())[:16]])
        named = teacher.classify(pictures).argmax(1)
        assert sum(int(label) in classes for label in named) >= 8, (name, named.tolist())


def test_its_maps_are_the_encoders() -> None:
    image = torch.zeros(1, 3, 64, 64)
    encoder = ImageEncoder().eval()
    maps, x = Teacher()(image), encoder.stem(image)
    assert maps[0].shape == x.shape
    for wanted, block in zip(maps[1:], (block for stage in encoder.stages for block in stage), strict=True):
        x = block(x)
        assert wanted.shape == x.shape
    assert len(BLOCKS) == 17


def test_it_judges_cells_as_it_classifies_photos() -> None:
    teacher, image = Teacher(), torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = teacher(image)[-1]
        cells = teacher.judge(last)
        pooled = F.relu6(teacher.last(last)).mean((2, 3), keepdim=True)
        assert cells.shape == (2, 1001, 2, 3)
        torch.testing.assert_close(teacher.classify(image), teacher.classifier(pooled)[:, :, 0, 0])


def test_another_model_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="MobileNetV2"):
        load_teacher(tmp_path / "other.safetensors")


def test_explained_share() -> None:
    wanted = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert explained(wanted, wanted) == 1
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert abs(float(explained(mean, wanted))) < 1e-5

"""``gransam eval``: each kind of ground truth on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hand_coco import SIZE, box, compressed, instance, write_truth
from hand_run import write_masks, write_run
from typer.testing import CliRunner

from gransam_sdk.cli import app
from gransam_sdk.errors import InputError


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_coco(tmp_path: Path) -> None:
    mask = box(2, 20, 3, 30)
    gt = write_truth(tmp_path / "gt", {"a": [instance("cat", compressed(mask))]})
    write_masks(tmp_path / "run", {"a.jpg": [(mask, 8, 0.5)]}, {"a.jpg": SIZE})
    found = json.loads(call(tmp_path / "run", "--gt", f"coco:{gt}", "--json"))
    assert (found["miou"], found["instance_ap50"], found["region_ap50"]) == (100.0, 100.0, 100.0)
    assert found["ap_by_class"]["cat"]["true_instances"] == 1
    strict = json.loads(call(tmp_path / "run", "--gt", f"coco:{gt}", "--json", "--conf", "0.6"))
    assert strict["instance_ap50"] == 0.0
    text = call(tmp_path / "run", "--gt", f"coco:{gt}")
    assert "mIoU21" in text and "region AP50" in text


def test_super(tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]) -> None:
    write_run(tmp_path / "run", {f"{photo}.jpg": labels for photo, labels in maps.items()})
    assert json.loads(call(tmp_path / "run", "--gt", f"voc:{gt}", "--super", "--json"))["iou"]["animals"] == 100.0
    assert "animals" not in call(tmp_path / "run", "--gt", f"voc:{gt}")
    with pytest.raises(InputError, match=r"--super\n.*voc:DIR"):
        call(tmp_path / "run", "--gt", f"coco:{gt}", "--super")


@pytest.mark.parametrize("gt", ["", "voc:", "coco:", "yolo:x", "x"])
def test_no_kind_of_ground_truth(tmp_path: Path, gt: str) -> None:
    with pytest.raises(InputError, match="voc:DIR or coco:DIR"):
        call(tmp_path, "--gt", gt)

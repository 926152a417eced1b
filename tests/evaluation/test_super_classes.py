"""The five super-classes: one table in code and in the classes file, and mIoU6 of every kind of run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_run import NAMES, as_list, reference_iou, write_run

from gransam_sdk import ClassInfo
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.class_names import VOC_CLASSES
from gransam_sdk.evaluation.super_classes import SUPER_CLASSES, SUPER_NAMES, super_map
from gransam_sdk.evaluation.voc import evaluate_voc

FILE = Path(__file__).parents[2] / "docs" / "granularity.toml"
BY_HAND = [0, 5, 5, 1, 5, 3, 5, 5, 1, 2, 1, 2, 1, 1, 5, 4, 3, 1, 2, 5, 3]
"""Super-class of each VOC value: 1 animals, 2 furniture, 3 household items, 4 person, 5 transportation."""


def to_super(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 255, 255, np.array([*BY_HAND, *[0] * 235])[labels]).astype(np.uint8)


def test_every_class_of_voc_has_its_place() -> None:
    assert SUPER_NAMES == ("background", "animals", "furniture", "household items", "person", "transportation")
    assert sorted(name for members in SUPER_CLASSES.values() for name in members) == sorted(VOC_CLASSES[1:])
    labels = np.array([[*range(21), 255]], dtype=np.uint8)
    assert super_map(labels).tolist() == [[*BY_HAND, 255]] and super_map(labels).dtype == np.uint8


def test_the_classes_file_is_the_same_table() -> None:
    classes = [ClassInfo(id=i, name=name) for i, name in enumerate(NAMES, start=1)]
    labels = select_classes(classes, file=FILE).labels
    assert {label.name: tuple(NAMES[i] for i in label.members) for label in labels} == SUPER_CLASSES
    assert [label.name for label in labels] == list(SUPER_CLASSES)


@pytest.mark.parametrize("kind", ["merged", "retrained", "mapped"])
def test_six_classes_equal_the_reference(
    tmp_path: Path, gt: Path, maps: dict[str, np.ndarray], guesses: dict[str, np.ndarray], kind: str
) -> None:
    """Groups made while annotating, a head of five classes, and a run of 20 whose labels are mapped."""
    found = guesses if kind == "mapped" else {photo: to_super(labels) for photo, labels in guesses.items()}
    names = NAMES if kind == "mapped" else SUPER_NAMES[1:]
    members = {name: list(own) for name, own in SUPER_CLASSES.items()} if kind == "merged" else None
    write_run(tmp_path / "run", {f"{photo}.jpg": labels for photo, labels in found.items()}, names, members=members)
    evaluation = evaluate_voc(tmp_path / "run", gt, super_classes=True, bootstrap=10)
    reference = reference_iou([to_super(t) for t in maps.values()], [to_super(guesses[photo]) for photo in maps], 6)
    assert as_list(evaluation.iou) == reference
    assert evaluation.classes == SUPER_NAMES and "mIoU6 " in evaluation.table()
    assert 0 < evaluation.miou < 1 and evaluation.not_asked == ()


def test_labels_must_keep_to_one_super_class(tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]) -> None:
    photos = {f"{photo}.jpg": np.zeros_like(labels) for photo, labels in maps.items()}
    write_run(tmp_path / "pets", photos, ("pets", "tv"), members={"pets": ["cat", "dog"]})
    assert len(evaluate_voc(tmp_path / "pets", gt, super_classes=True, bootstrap=1).not_asked) == 3
    with pytest.raises(InputError, match=r"found:\s+pets\n.*--super"):
        evaluate_voc(tmp_path / "pets", gt)
    for number, members in enumerate((["cat", "sofa"], ["lion"], ["cat", "lion"], [])):
        run = tmp_path / f"mixed {number}"
        write_run(run, photos, ("mixed",), members={"mixed": members})
        with pytest.raises(InputError, match=r"found:\s+mixed\n.*granularity\.toml"):
            evaluate_voc(run, gt, super_classes=True)
    with pytest.raises(InputError) as error:
        evaluate_voc(tmp_path / "mixed 0", gt)
    assert "--super" not in str(error.value), "what the super-classes do not know either is not sent there"

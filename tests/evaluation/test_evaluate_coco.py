"""A run against COCO's instances: equal to references and to COCOeval itself, and plain about what it cannot use."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_coco import CATEGORIES, SIZE, box, compressed, instance, run_lengths, write_truth
from hand_run import NAMES, as_list, reference_iou, write_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gransam_sdk.annotate.record import iter_records
from gransam_sdk.errors import InputError, MissingExtraError
from gransam_sdk.evaluation import coco as coco_module
from gransam_sdk.evaluation.class_names import COCO_CLASSES, COCO_NAMES, COCO_VALUES, VOC_CLASSES, VOC_VALUES
from gransam_sdk.evaluation.coco import CocoEvaluation, evaluate_coco
from gransam_sdk.evaluation.coco_truth import read_instances

Masks = list[tuple[np.ndarray, int, float]]
decodes_by_pycocotools = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TABLE = [4.0, 2.0, 28.0, 2.0, 28.0, 22.0, 4.0, 22.0]


def truths() -> dict[str, list[dict[str, Any]]]:
    """A table with a sofa and a cup on it; people before a crowd of fewer pixels; a photo without anything."""
    return {
        "a": [
            instance("dining table", [TABLE]),
            instance("couch", compressed(box(6, 12, 6, 14))),
            instance("cup", compressed(box(14, 18, 0, 10))),
        ],
        "b": [
            instance("person", run_lengths(box(0, 20, 0, 6))),
            instance("person", compressed(box(2, 20, 4, 10))),
            instance("person", run_lengths(box(0, 4, 8, 32)), crowd=1),
            instance("cup", run_lengths(box(12, 24, 20, 32)), crowd=1),
            instance("cat", [[20.0, 13.0, 30.0, 13.0, 30.0, 23.0], [12.0, 14.0, 16.0, 14.0, 16.0, 20.0, 12.0, 20.0]]),
        ],
        "c": [],
    }


def same_as_truth(gt: Path, meanings: dict[str, int]) -> dict[str, Masks]:
    """The truth's instances as predictions, decoded by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(gt / "instances.json"))
    names = {row["id"]: row["name"] for row in coco.dataset["categories"]}
    return {
        Path(image["file_name"]).name: [
            (coco.annToMask(each).astype(bool), meanings[names[each["category_id"]]], 0.9)
            for each in coco.imgToAnns[image["id"]]
            if not each["iscrowd"] and meanings.get(names[each["category_id"]])
        ]
        for image in coco.dataset["images"]
    }


def write_and_evaluate(
    tmp_path: Path, gt: Path, masks: dict[str, Masks], names: tuple[str, ...] = NAMES, **options: Any
) -> CocoEvaluation:
    run = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
    write_masks(run, masks, dict.fromkeys(masks, SIZE), names)
    return evaluate_coco(run, gt, bootstrap=20, **options)


def test_the_names_of_both_lists() -> None:
    assert (len(VOC_CLASSES), len(COCO_CLASSES), len(set(COCO_CLASSES))) == (21, 81, 81)
    shared = [COCO_NAMES.get(name, name) for name in VOC_CLASSES[1:]]
    assert len(set(shared) & set(COCO_CLASSES)) == 20
    assert all(VOC_VALUES[name] == VOC_VALUES[COCO_NAMES.get(name, name)] for name in VOC_CLASSES[1:])
    assert COCO_CLASSES[COCO_VALUES["sofa"]] == "couch" and COCO_CLASSES[COCO_VALUES["toothbrush"]] == "toothbrush"


def test_the_label_map_of_the_truth_by_hand(tmp_path: Path) -> None:
    a, b, c = read_instances(write_truth(tmp_path / "gt", truths()) / "instances.json", VOC_VALUES)
    table, sofa = VOC_CLASSES.index("diningtable"), VOC_CLASSES.index("sofa")
    expected = np.where(box(2, 22, 4, 28), table, 0)
    expected[box(6, 12, 6, 14)] = sofa  # smaller, so on top; the cup is no class of VOC and leaves the table its pixels
    np.testing.assert_array_equal(a.label_map(), expected)
    labels = b.label_map()
    assert (labels[box(0, 20, 0, 10) & ~box(0, 2, 6, 10)] == VOC_CLASSES.index("person")).all()
    assert (labels[box(0, 4, 10, 32)] == 255).all(), "a crowd that no instance covers"
    assert set(np.unique(labels[4:])) == {0, 8, 15}, "a crowd of a class that is not evaluated is background"
    assert not c.label_map().any() and c.size == SIZE
    over_80 = read_instances(tmp_path / "gt" / "instances.json", COCO_VALUES)
    assert (over_80[0].label_map()[box(14, 18, 0, 10)] == COCO_CLASSES.index("cup")).all()
    assert (over_80[1].label_map()[20:24, 31] == 255).all()


@decodes_by_pycocotools
@pytest.mark.parametrize("names", [NAMES, COCO_CLASSES[1:]], ids=["20", "80"])
def test_truth_against_itself_is_perfect(tmp_path: Path, names: tuple[str, ...]) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    meanings = VOC_VALUES if names is NAMES else COCO_VALUES
    result = write_and_evaluate(tmp_path, gt, same_as_truth(gt, meanings), names)
    assert result.semantic.classes == (VOC_CLASSES if names is NAMES else COCO_CLASSES)
    assert result.semantic.confusions.shape == (3, len(names) + 1, len(names) + 1)
    found = result.to_json()
    assert (found["miou"], found["instance_ap50"], found["instance_ap"], found["region_ap50"]) == (100.0,) * 4
    assert result.instances.true.sum() == (5 if names is NAMES else 6)
    assert found["iou"]["dog"] is None and found["ap_by_class"]["dog"]["instance_ap50"] is None
    json.dumps(found, allow_nan=False)


def guesses(names: tuple[str, ...]) -> dict[str, Masks]:
    """Right, shifted, doubled and wrong masks, and one in the crowd."""
    table, sofa, person, cat, car = (names.index(n) + 1 for n in ("diningtable", "sofa", "person", "cat", "car"))
    return {
        "a.jpg": [(box(3, 20, 4, 27), table, 0.6), (box(6, 12, 5, 13), sofa, 0.8), (box(0, 4, 0, 9), sofa, 0.9)],
        "b.jpg": [
            (box(0, 18, 0, 6), person, 0.7),
            (box(0, 17, 0, 6), person, 0.95),
            (box(0, 4, 16, 24), person, 0.99),
            (box(13, 23, 20, 30), cat, 0.5),
        ],
        "c.jpg": [(box(0, 9, 0, 9), car, 0.45), (box(10, 14, 0, 9), cat, 0.55), (box(0, 9, 9, 20), cat, 0.35)],
    }


def test_miou_equals_the_reference(tmp_path: Path) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    result = write_and_evaluate(tmp_path, gt, guesses(NAMES))
    true = [photo.label_map() for photo in read_instances(gt / "instances.json", VOC_VALUES)]
    painted = []
    for found in guesses(NAMES).values():
        labels = np.zeros(SIZE, dtype=np.uint8)
        for mask, label, confidence in sorted(found, key=lambda each: each[2]):
            if confidence >= 0.4:  # the run's thresholds
                labels[mask] = label
        painted.append(labels)
    assert as_list(result.semantic.iou) == reference_iou(true, painted, 21)
    assert 0 < result.semantic.miou < 1 and result.semantic.iou[7] == 0.0


def test_instances_equal_cocoeval_on_the_same_files(tmp_path: Path) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    result = write_and_evaluate(tmp_path, gt, guesses(NAMES))
    mean, at_50 = cocoeval_of(gt, next(tmp_path.glob("run *")))
    assert result.instances.mean_ap == pytest.approx(mean, abs=1e-9)
    assert result.instances.mean_ap50 == pytest.approx(at_50, abs=1e-9)
    assert 0 < at_50 < 1


def cocoeval_of(gt: Path, run: Path) -> tuple[float, float]:
    """AP and AP50 as pycocotools gives them from files, of the 20 classes, with its own settings."""
    document = json.loads((gt / "instances.json").read_text())
    to_voc = {coco: voc for voc, coco in COCO_NAMES.items()}
    number = {to_voc.get(row["name"], row["name"]): row["id"] for row in document["categories"]}
    image = {Path(row["file_name"]).name: row["id"] for row in document["images"]}
    results = [
        {
            "image_id": image[record["image"]["file_name"]],
            "category_id": number[each["class"]],
            "segmentation": each["segmentation"],
            "score": each["score"],
        }
        for record in iter_records(run)
        for each in record["annotations"]
        if each["confidence"] >= 0.4 and each["class"] in number
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(gt / "instances.json"))
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.catIds = sorted(number[name] for name in NAMES if name in number)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def test_regions_join_what_instances_tell_apart(tmp_path: Path) -> None:
    """Two people found as one mask: one instance of two at best, yet the whole region."""
    gt = write_truth(tmp_path / "gt", truths())
    together = box(0, 20, 0, 6) | box(2, 20, 4, 10) | box(0, 4, 10, 20)
    result = write_and_evaluate(tmp_path, gt, {"a.jpg": [], "b.jpg": [(together, 15, 0.9)], "c.jpg": []})
    person = NAMES.index("person")
    assert (result.regions.ap50[person], result.regions.true[person]) == (pytest.approx(1.0), 1)
    assert result.regions.ap[person] == pytest.approx(1.0), "what lies in the crowd counts nowhere"
    assert result.instances.ap50[person] < 0.6 and result.instances.true[person] == 2
    assert result.regions.mean_ap50 == pytest.approx(1 / 4)


def test_thresholds_and_extra_records(tmp_path: Path) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    masks = {**guesses(NAMES), "trip/d.jpg": guesses(NAMES)["c.jpg"]}
    loose = write_and_evaluate(tmp_path, gt, masks, conf=0.3)
    strict = write_and_evaluate(tmp_path, gt, masks, conf={"cat": 0.6})
    cat = NAMES.index("cat")
    assert (loose.instances.found[cat], strict.instances.found[cat]) == (3, 0)
    assert loose.semantic.extra == 1


def test_the_score_ranks_and_not_the_confidence(tmp_path: Path) -> None:
    mask = box(2, 20, 3, 30)
    gt = write_truth(tmp_path / "gt", {"a": [instance("cat", compressed(mask))]})
    write_masks(tmp_path / "run", {"a.jpg": [(mask, 8, 0.6), (box(0, 2, 0, 9), 8, 0.8)]}, {"a.jpg": SIZE})
    path = tmp_path / "run" / "records" / "a.jpg.json"
    record = json.loads(path.read_text())
    record["annotations"][1] |= {"predicted_iou": 0.5, "score": 0.4}
    path.write_text(json.dumps(record) + "\n")
    assert evaluate_coco(tmp_path / "run", gt, bootstrap=1).instances.mean_ap50 == pytest.approx(1.0)


def test_the_table_gives_the_numbers(tmp_path: Path) -> None:
    result = write_and_evaluate(tmp_path, write_truth(tmp_path / "gt", truths()), guesses(NAMES))
    second = result.table().partition("inst. AP50")[2]
    lines = {line.split()[0]: line.split() for line in second.splitlines() if line}
    means = (result.instances.mean_ap50, result.instances.mean_ap, result.regions.mean_ap50)
    assert [float(cell) for cell in lines["mean"][1:]] == pytest.approx([100 * m for m in means], abs=0.005)
    assert lines["person"][4:] == ["2", "3"] and lines["dog"][1:] == ["absent"] * 3 + ["0", "0"]
    assert "mIoU21" in result.table()


def test_labels_choose_the_classes(tmp_path: Path) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    nothing: dict[str, Masks] = {f"{photo}.jpg": [] for photo in "abc"}
    some = write_and_evaluate(tmp_path, gt, nothing, ("airplane", "TV"))
    assert some.semantic.classes == VOC_CLASSES and len(some.semantic.not_asked) == 18
    more = write_and_evaluate(tmp_path, gt, nothing, ("aeroplane", "tvmonitor", "cup"))
    assert more.semantic.classes == COCO_CLASSES and len(more.semantic.not_asked) == 77
    assert not {"airplane", "tv", "cup"} & set(more.semantic.not_asked)
    with pytest.raises(InputError, match=r"found:\s+animals\n.*without it"):
        write_and_evaluate(tmp_path, gt, nothing, ("cat", "animals"))


def test_photos_and_records_must_fit(tmp_path: Path) -> None:
    gt = write_truth(tmp_path / "gt", truths())
    with pytest.raises(InputError, match=r"each of the 3 photos.*\n.*1 without: b"):
        write_and_evaluate(tmp_path, gt, {"a.jpg": [], "c.jpg": []})
    write_masks(tmp_path / "turned", {"a.jpg": []}, {"a.jpg": (32, 24)})
    with pytest.raises(InputError, match=r"instances\.json\n.*32 x 24\n.*24 x 32"):
        evaluate_coco(tmp_path / "turned", gt)


def broken(change: Any) -> str:
    """``instances.json`` of one photo with one instance, after a change to it."""
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 24, "width": 32}],
        "annotations": [{"id": 9, "image_id": 1, "category_id": 17, "segmentation": [TABLE], "iscrowd": 0}],
        "categories": [{"id": 17, "name": "cat"}],
    }
    change(document)
    return json.dumps(document)


def put(key: str, value: Any, where: str = "annotations") -> Any:
    return lambda document: document[where][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("segmentation", [[1, 2, 3, 4]]), "annotation 9"),
        (put("segmentation", [[1, 2, 3, 4, 5, 1e9]]), "annotation 9"),
        (put("segmentation", [[1, 2, 3, 4, 5, "6"]]), "annotation 9"),
        (put("segmentation", []), "annotation 9"),
        (put("segmentation", 7), "annotation 9"),
        (put("segmentation", {"size": [32, 24], "counts": [768]}), r"annotation 9\n.*\[24, 32\]"),
        (put("segmentation", {"size": [24, 32], "counts": [700]}), "768 pixels"),
        (put("segmentation", {"size": [24, 32], "counts": "\x7f"}), "RLE counts"),
        (put("segmentation", {"size": [24, 32]}), "KeyError: 'counts'"),
        (put("image_id", 2), "KeyError: 2"),
        (put("category_id", 2), "KeyError: 2"),
        (put("height", -3, "images"), r"image 1\n"),
        (put("height", 10**9, "images"), r"image 1\n"),
        (put("name", "unicorn", "categories"), "categories of COCO"),
        (lambda document: document["images"].append(document["images"][0]), "two of one"),
        (lambda document: document.pop("categories"), "categories"),
        (lambda document: document.update(images=7), "images, annotations"),
    ],
)
def test_damaged_ground_truth_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(broken(lambda document: None))
    assert len(read_instances(path, VOC_VALUES)[0].regions) == 1
    path.write_text(broken(change))
    with pytest.raises(InputError, match=rf"(?s)instances\.json.*{message}"):
        read_instances(path, VOC_VALUES)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_ground_truth(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="ground truth"):
        read_instances(tmp_path / "instances.json", VOC_VALUES)
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InputError, match="ground truth"):
        read_instances(tmp_path / "instances.json", VOC_VALUES)


def test_a_missing_package_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("pycocotools is not installed")

    monkeypatch.setattr(coco_module, "require_pycocotools", missing)
    with pytest.raises(MissingExtraError):
        evaluate_coco(tmp_path / "no run", tmp_path / "no truth")


@pytest.mark.shared
@decodes_by_pycocotools
def test_real_instances_as_predictions(tmp_path: Path, shared: Path) -> None:
    """COCO's own instances as a run: perfect over 20 classes, and equal to COCOeval when they are shifted."""
    gt = shared / "data" / "coco_dev"
    exact = same_as_truth(gt, VOC_VALUES)
    document = json.loads((gt / "instances.json").read_text())
    assert {(row["name"], row["id"]) for row in document["categories"]} >= set(CATEGORIES.items())
    assert tuple(row["name"] for row in document["categories"]) == COCO_CLASSES[1:]
    sizes = {row["file_name"]: (row["height"], row["width"]) for row in document["images"]}
    write_masks(tmp_path / "exact", exact, sizes)
    result = evaluate_coco(tmp_path / "exact", gt, bootstrap=20)
    found = result.to_json()
    assert (found["photos"], found["miou"]) == (93, 100.0)
    assert (found["instance_ap50"], found["region_ap50"]) == (100.0, 100.0)
    assert result.instances.true.sum() > 300 and result.instances.true.sum() == result.instances.found.sum()

    moved = {
        photo: [
            (np.roll(mask, (3 + 5 * i, 9), axis=(0, 1)), label, round(0.4 + 0.5 / (i + 1), 3))
            for i, (mask, label, _) in enumerate(masks)
        ]
        for photo, masks in exact.items()
    }
    write_masks(tmp_path / "moved", moved, sizes)
    result = evaluate_coco(tmp_path / "moved", gt, bootstrap=20)
    mean, at_50 = cocoeval_of(gt, tmp_path / "moved")
    assert (result.instances.mean_ap, result.instances.mean_ap50) == pytest.approx((mean, at_50), abs=1e-9)
    assert 0.1 < at_50 < 0.9

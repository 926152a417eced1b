"""A run against VOC label maps: equal to counting pixel by pixel, and plain about what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hand_run import as_list, evaluate, label_map, reference_iou, write_run
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.voc import evaluate_voc


def test_evaluation_equals_the_reference(
    tmp_path: Path, gt: Path, maps: dict[str, np.ndarray], guesses: dict[str, np.ndarray]
) -> None:
    evaluation = evaluate(tmp_path, gt, guesses)
    reference = reference_iou(list(maps.values()), [guesses[photo] for photo in maps], 21)
    assert as_list(evaluation.iou) == reference
    known = [value for value in reference if value is not None]
    assert evaluation.miou == pytest.approx(sum(known) / len(known), abs=1e-12)
    assert evaluation.foreground == pytest.approx(sum(known[1:]) / (len(known) - 1), abs=1e-12)
    assert reference[5] == 0.0 and reference[1] is None, "found but not there counts as 0, in neither is left out"
    low, high = evaluation.interval
    assert low < evaluation.miou < high
    assert evaluation.ids == tuple(maps) and evaluation.confusions.shape == (12, 21, 21)
    assert (evaluation.extra, evaluation.not_asked) == (0, ())


def test_truth_against_itself_is_perfect(tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]) -> None:
    evaluation = evaluate(tmp_path, gt, maps)
    assert (evaluation.miou, evaluation.foreground, evaluation.interval) == (1.0, 1.0, (1.0, 1.0))
    assert evaluation.to_json()["miou"] == 100.0
    assert evaluation.to_json()["iou"]["cat"] == 100.0 and evaluation.to_json()["iou"]["dog"] is None
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_nothing_found_leaves_background(tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]) -> None:
    evaluation = evaluate(tmp_path, gt, {photo: np.zeros_like(truth) for photo, truth in maps.items()})
    counted = np.concatenate([truth[truth != 255] for truth in maps.values()])
    assert evaluation.iou[0] == (counted == 0).mean()
    assert evaluation.foreground == 0.0


def test_dev_txt_picks_the_photos(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    ids = sorted(guesses)[2:6]
    (gt / "dev.txt").write_text("\n".join(reversed(ids)) + "\n")
    evaluation = evaluate(tmp_path, gt, guesses)
    assert evaluation.ids == tuple(ids) and evaluation.extra == 8
    assert "8 records are not in the ground truth" in evaluation.table()


def test_thresholds_can_be_stricter_but_not_looser_than_recorded(
    tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]
) -> None:
    write_run(tmp_path / "run", {f"{photo}.jpg": labels for photo, labels in maps.items()}, confidence=0.5)
    assert evaluate_voc(tmp_path / "run", gt, bootstrap=1).miou == 1.0
    assert evaluate_voc(tmp_path / "run", gt, conf=0.5, bootstrap=1).miou == 1.0
    assert evaluate_voc(tmp_path / "run", gt, conf=0.51, bootstrap=1).foreground == 0.0
    partly = evaluate_voc(tmp_path / "run", gt, conf={"cat": 0.6}, bootstrap=1)
    assert partly.iou[8] == 0.0 and partly.iou[15] == 1.0
    with pytest.raises(InputError, match=r"conf of aeroplane\n.*0\.3 or more"):
        evaluate_voc(tmp_path / "run", gt, conf=0.2)
    with pytest.raises(InputError, match="lion"):
        evaluate_voc(tmp_path / "run", gt, conf={"lion": 0.6})


def test_some_classes_under_other_names(tmp_path: Path, gt: Path, maps: dict[str, np.ndarray]) -> None:
    tv_and_cat = {f"{photo}.jpg": np.select([labels == 20, labels == 8], [1, 2], 0) for photo, labels in maps.items()}
    write_run(tmp_path / "run", tv_and_cat, names=("tele", "cat"), members={"tele": ["TV"]})
    evaluation = evaluate_voc(tmp_path / "run", gt, bootstrap=10)
    assert (evaluation.iou[20], evaluation.iou[8], evaluation.iou[15]) == (1.0, 1.0, 0.0)
    assert len(evaluation.not_asked) == 18 and "person" in evaluation.not_asked
    line = next(line for line in evaluation.table().splitlines() if line.startswith("person"))
    assert line.split()[1:] == ["0.00", line.split()[2], "0.00", "not", "asked", "for"]


def test_table_gives_the_numbers_of_the_evaluation(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    evaluation = evaluate(tmp_path, gt, guesses)
    lines = {line.split()[0]: line.split() for line in evaluation.table().splitlines() if line}
    assert float(lines["cat"][1]) == pytest.approx(100 * evaluation.iou[8], abs=0.005)
    assert float(lines["mIoU21"][1]) == pytest.approx(100 * evaluation.miou, abs=0.005)
    assert float(lines["foreground"][1]) == pytest.approx(100 * evaluation.foreground, abs=0.005)
    assert lines["aeroplane"][1] == "absent"
    assert [float(lines["mIoU21"][i]) for i in (5, 7)] == pytest.approx(
        [100 * v for v in evaluation.interval], abs=0.01
    )


@pytest.mark.parametrize(
    ("label", "members"), [("animals", ["bird", "dog"]), ("dog", ["dog", "bird"]), ("dog", ["lion"])]
)
def test_groups_and_other_classes_have_no_ground_truth(
    tmp_path: Path, gt: Path, label: str, members: list[str]
) -> None:
    write_run(tmp_path / "run", {}, names=("cat", label), members={label: members})
    with pytest.raises(InputError, match=rf"found:\s+{label}\n.*without it"):
        evaluate_voc(tmp_path / "run", gt)


def test_photos_without_a_record_are_named(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    some = dict(list(guesses.items())[7:])
    with pytest.raises(InputError, match=r"each of the 12 photos.*\n.*7 without: 2007_000000, .*2007_000004, \.\.\."):
        evaluate(tmp_path, gt, some)


def test_two_records_for_one_photo_are_refused(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="one record for 2007_000003"):
        evaluate(tmp_path, gt, {**guesses, "copies/2007_000003": guesses["2007_000003"]})


def test_sizes_must_agree(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    turned = {**guesses, "2007_000004": np.zeros((35, 24), dtype=np.uint8)}
    with pytest.raises(InputError, match=r"2007_000004\.jpg and .*2007_000004\.png\n.*35 x 24\n.*24 x 35"):
        evaluate(tmp_path, gt, turned)


def test_damaged_ground_truth_is_refused(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    path = gt / "SegmentationClass" / "2007_000000.png"
    label_map(gt, "2007_000000", np.full((24, 35), 40))
    with pytest.raises(InputError, match=r"0 to 20, or 255.*\n.*40"):
        evaluate(tmp_path, gt, guesses)
    Image.new("RGB", (35, 24)).save(path)
    with pytest.raises(InputError, match="mode RGB"):
        evaluate(tmp_path, gt, guesses)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="label map"):
        evaluate(tmp_path, gt, guesses)
    (gt / "dev.txt").write_text("2007_000000 2011_999999")
    with pytest.raises(InputError, match="2011_999999"):
        evaluate(tmp_path, gt, guesses)


def test_no_run_and_no_ground_truth(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        evaluate_voc(tmp_path / "nowhere", gt)
    write_run(tmp_path / "other", {})
    for text in ("{}", "[]", "{", '{"classes": [{"id": 1}], "settings": {"record_floor": 0.3}}', '{"classes": []}'):
        (tmp_path / "other" / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json"):
            evaluate_voc(tmp_path / "other", gt)
    with pytest.raises(InputError, match="SegmentationClass"):
        evaluate(tmp_path, tmp_path / "elsewhere", guesses)
    (tmp_path / "empty" / "SegmentationClass").mkdir(parents=True)
    with pytest.raises(InputError, match="at least one label map"):
        evaluate(tmp_path, tmp_path / "empty", guesses)
    with pytest.raises(InputError, match="bootstrap"):
        write_run(tmp_path / "again", {f"{photo}.jpg": labels for photo, labels in guesses.items()})
        evaluate_voc(tmp_path / "again", gt, bootstrap=0)


@pytest.mark.shared
def test_real_label_maps(tmp_path: Path, shared: Path) -> None:
    """Real VOC truths as predictions of themselves, then shifted: perfect, and equal to the reference."""
    source = sorted((shared / "data" / "voc2012_dev" / "SegmentationClass").glob("*.png"))[::40]
    gt = tmp_path / "gt"
    (gt / "SegmentationClass").mkdir(parents=True)
    truths, shifted = {}, {}
    for path in source:
        shutil.copyfile(path, gt / "SegmentationClass" / path.name)
        with Image.open(path) as picture:
            truths[path.stem] = np.array(picture)
        shifted[path.stem] = np.roll(truths[path.stem], 9, axis=1) % 255
    perfect = evaluate(tmp_path, gt, truths)
    assert perfect.miou == 1.0 and (perfect.iou == 1.0).sum() >= 5
    moved = evaluate(tmp_path, gt, shifted)
    assert as_list(moved.iou) == reference_iou(list(truths.values()), list(shifted.values()), 21)

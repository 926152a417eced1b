"""The ablation's counts, scores and bootstrap against counts by hand, and a killed run that goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gransam_sdk.training.bags import Bags, SceneBags
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.examples import Example
from gransam_sdk.training.fit import Fitted, fit_head
from gransam_sdk.training.folds import fold_numbers
from gransam_sdk.training.scenes import NO_PART, Scene, Tile
from gransam_sdk.training.token_shard import TokenShape
from gransam_sdk.training.tokens import CachedPictures

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import ablation
import hold_out
import result
from hold_out import THRESHOLDS, Counts

CLASSES, PROMPTS, WIDTH = 3, 8, 4
AT_40, AT_50, AT_95 = (THRESHOLDS.index(value) for value in (0.4, 0.5, 0.95))


def logits_of(*units: list[list[float]]) -> torch.Tensor:
    """Logits whose softmax is these probabilities."""
    return torch.tensor(units).log()


def test_counts_of_a_picture_a_background_picture_and_a_scene() -> None:
    # columns: class 0, class 1, explicit background
    picture = [[0.6, 0.3, 0.1], [0.45, 0.35, 0.2], [0.2, 0.7, 0.1], [0.05, 0.05, 0.9]]
    nothing = [[0.55, 0.25, 0.2], [0.1, 0.2, 0.7], [0.05, 0.15, 0.8], [0.1, 0.1, 0.8]]
    scene = [[0.1, 0.8, 0.1], [0.3, 0.5, 0.2], [0.45, 0.35, 0.2], [0.42, 0.38, 0.2]]
    parts = np.array([[0, NO_PART, NO_PART], [-1, NO_PART, NO_PART], [1, 1, 0]])
    part_of = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])  # the third picture lies under no click
    logits = logits_of(picture, nothing, scene)
    found = hold_out.count_parts(logits, parts, part_of, classes=2, divisor=4)
    assert found["shown"].tolist() == [1, 0, 2]
    # one click speaks for a class: on the first picture 0.7 for class 1, in the scene 0.8 for 1, then 0.45 for 0
    assert found["named"].tolist() == [0, 0, 1]
    assert found["kept"][:, AT_40].tolist() == [3, 1, 4]
    assert found["right"][:, AT_40].tolist() == [2, 0, 2]
    assert found["found"][:, AT_40].tolist() == [1, 0, 1]
    assert found["kept"][:, AT_50 + 1].tolist() == [2, 1, 1], "what background wins is never kept"
    assert found["right"][:, AT_50 + 1].tolist() == [1, 0, 1]
    assert not any(found[name][:, AT_95].any() for name in ("kept", "right", "found"))
    two_clicks = hold_out.count_parts(logits, parts, part_of, classes=2, divisor=2)
    # mean log of the two largest: class 0 (0.6, 0.45) over class 1 (0.7, 0.35)
    assert two_clicks["named"].tolist() == [1, 0, 1]


def test_counts_are_those_of_a_loop_over_clicks() -> None:
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(size=(12, 20, 4)).astype(np.float32) * 2)
    parts = random.integers(-1, 3, size=(12, 3))
    part_of = random.integers(0, 3, size=(12, 20))
    counted = hold_out.count_parts(logits, parts, part_of, classes=3, divisor=8)
    p = logits.softmax(2).numpy()
    for unit in range(12):
        for number, threshold in enumerate(THRESHOLDS):
            kept, right, found = 0, 0, set()
            for click in range(20):
                winner = int(p[unit, click].argmax())
                if winner == 3 or p[unit, click, winner] < np.float32(threshold):
                    continue
                kept += 1
                if winner == parts[unit, part_of[unit, click]]:
                    right += 1
                    found.add(part_of[unit, click])
            seen = [int(counted[name][unit, number]) for name in ("kept", "right", "found")]
            assert seen == [kept, right, len(found)]
        named = 0
        for part in range(3):
            own = logits[unit].numpy()[part_of[unit] == part]
            size = -(-len(own) // 8)
            if len(own) and parts[unit, part] >= 0:
                named += int(np.sort(own, axis=0)[-size:].mean(0)[:3].argmax()) == parts[unit, part]
        assert int(counted["named"][unit]) == named


def test_a_label_a_mask_counts_every_mask_of_a_click() -> None:
    """The head hands its input on: an instance is three logits, of tokens 0 to 3 the last three count."""
    sure, unsure = [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    other = [0.0, 4.0, 0.0]
    clicks = [[other, sure, unsure, unsure], [other, sure, sure, other]]  # by token
    instances = np.array(clicks, dtype=np.float16).reshape(1, 2, 12)
    scenes = SceneBags(
        instances=instances,
        parts=np.array([[1, 0]]),
        part_of=np.array([[0, 1]]),
        rim=np.zeros((1, 2), dtype=np.float16),
        folds=np.zeros(1, dtype=np.int64),
    )
    held = Bags(
        classes=("a", "b", "c"),
        instances=instances,
        labels=np.array([0]),
        rim=np.zeros((1, 2), dtype=np.float16),
        folds=np.zeros(1, dtype=np.int64),
        scenes=scenes,
        token_width=12,
    )
    counts = hold_out.count_units(
        torch.nn.Identity(), held, HeadConfig(members=1, least_steps=1, inputs="per_token"), (4, 5)
    )
    assert counts.in_scene.tolist() == [False, True] and counts.epochs.tolist() == [4, 5]
    assert counts.kept[:, AT_50].tolist() == [4, 4], "the three sure masks of class a and one of b"
    assert counts.right[:, AT_50].tolist() == [3, 2], "in the scene, the first click lies on a b"
    assert counts.found[:, AT_50].tolist() == [1, 1]
    assert counts.shown.tolist() == [1, 2]
    again = Counts.from_bytes(counts.to_bytes())
    for name, values in asdict(counts).items():
        np.testing.assert_array_equal(getattr(again, name), values)


def counts_of(kept: list[int], right: list[int], found: list[int], shown: list[int], at: int) -> Counts:
    """Units, the last of them a scene, that keep something at one threshold and nothing at the others."""
    table = np.zeros((3, len(kept), len(THRESHOLDS)), dtype=np.int64)
    table[:, :, at] = kept, right, found
    units = np.array(shown)
    return Counts(
        in_scene=np.arange(len(kept)) == len(kept) - 1,
        shown=units,
        named=np.minimum(units, 1),
        kept=table[0],
        right=table[1],
        found=table[2],
        epochs=np.array([10, 10]),
    )


def test_shares_f1_and_best_threshold_by_hand() -> None:
    one = counts_of(kept=[4, 2, 6], right=[3, 0, 3], found=[1, 0, 2], shown=[1, 0, 4], at=5)
    assert hold_out.named_share(one, in_scene=False) == 1.0
    assert hold_out.named_share(one, in_scene=True) == 1 / 4
    expected = 2 * 0.5 * 0.6 / (0.5 + 0.6)  # 6 of 12 kept are right, 3 of 5 pictures are found
    assert hold_out.f1_scores(one)[5] == pytest.approx(expected)
    assert hold_out.f1_scores(one)[6] == 0.0
    drawn = hold_out.f1_scores(one, np.array([[0.0, 1.0, 2.0]]))[0, 5]
    assert drawn == pytest.approx(2 * (6 / 14) * 0.5 / (6 / 14 + 0.5)), "the second unit once, the third twice"
    # each seed alone would choose 5 or 7; together 7, where the second is better than the first is at 5
    better = counts_of(kept=[4, 0, 4], right=[4, 0, 4], found=[1, 0, 4], shown=[1, 0, 4], at=7)
    assert hold_out.best_threshold([one]) == 5
    assert hold_out.best_threshold([one, better]) == 7


def random_counts(seed: int, worse: float = 0.0) -> Counts:
    random = np.random.default_rng(seed)
    kept = random.integers(1, 30, size=60)
    right = random.binomial(kept, 0.8 - worse)
    shown = np.ones(60, dtype=np.int64)
    return counts_of(kept.tolist(), right.tolist(), np.minimum(right, 1).tolist(), shown.tolist(), at=3)


def test_bootstrap_of_equal_rows_is_exactly_zero_and_another_draws_the_same_interval() -> None:
    row = [random_counts(0), random_counts(1)]
    assert hold_out.f1_difference(row, row) == (0.0, 0.0, 0.0)
    worse = [random_counts(0, worse=0.2), random_counts(1, worse=0.2)]
    exact, low, high = hold_out.f1_difference(row, worse)
    assert 0.0 < low < exact < high

    def score(counts: Counts, units: np.ndarray) -> float:
        kept, right, found = (values[units, 3].sum() for values in (counts.kept, counts.right, counts.found))
        return 2 * right * found / (right * len(units) + found * kept)  # 2pr/(p+r), every unit shows one picture

    random = np.random.default_rng(5)
    draws = []
    for _ in range(4000):
        chosen = [random.integers(60, size=60) for _ in row]
        draws.append(np.mean([score(a, u) - score(b, u) for a, b, u in zip(row, worse, chosen, strict=True)]))
    np.testing.assert_allclose([low, high], np.percentile(draws, [2.5, 97.5]), atol=0.15 * (high - low))
    with pytest.raises(ValueError, match="different units"):
        hold_out.f1_difference(row[:1], [replace(row[0], in_scene=~row[0].in_scene)])


def small_bags() -> Bags:
    """Ten pictures a class and of background; a third of the instances carry the class; a scene for every picture."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], 10)
    centres = random.normal(size=(CLASSES, 4 * WIDTH)) * 3

    def shown(label: int) -> np.ndarray:
        instances = random.normal(size=(PROMPTS, 4 * WIDTH))
        if label >= 0:
            instances[: PROMPTS // 3] += centres[label]
        return instances

    instances = np.array([shown(label) for label in labels], dtype=np.float16)
    folds = fold_numbers(labels)
    scenes = SceneBags(
        instances=instances.copy(),
        parts=labels[:, None],
        part_of=np.zeros((len(labels), PROMPTS), dtype=np.int64),
        rim=np.zeros((len(labels), PROMPTS), dtype=np.float16),
        folds=folds,
    )
    return Bags(
        classes=("a", "b", "c"),
        instances=instances,
        labels=labels,
        rim=np.zeros((len(labels), PROMPTS), dtype=np.float16),
        folds=folds,
        scenes=scenes,
        token_width=4 * WIDTH,
    )


def test_a_killed_run_goes_on_and_a_second_one_refits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bags, asked, fits = small_bags(), [], []
    last = 3

    def bags_of(choice: str) -> Bags:
        asked.append(choice)
        return ablation.used_half(bags)

    def counted(rest: Bags, config: HeadConfig) -> Fitted:
        if len(fits) == last:
            raise KeyboardInterrupt
        fits.append((config.seed, rest.folds.max()))
        return fit_head(rest, config)

    monkeypatch.setattr(ablation, "fit_head", counted)
    brief = HeadConfig(members=1, least_steps=1, epochs=1, inputs="tokens", scenes=False)
    rows = [
        ablation.Row(name="one", config=brief),
        ablation.Row(name="two", config=replace(brief, inputs="fused"), reference="one", choice="whole"),
        ablation.Row(name="prototypes", config=brief, reference="one", prototypes=True),
    ]

    def run(identity: str = "bags") -> dict[str, list[Counts]]:
        return ablation.measure_all(rows, (0, 1), bags_of, tmp_path / "work", identity)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(fits) == 3 and len(list((tmp_path / "work").iterdir())) == 5, "two of them prototypes"
    last = 100
    counts = run()
    assert [seed for seed, _ in fits] == [0, 1, 0, 1], "the one cell that was missing is all that is fitted"
    assert max(fold for _, fold in fits) < ablation.USED_FOLDS
    assert asked == ["best_iou"] * 4 + ["whole"] * 3, "one choice after the other"
    again = run()
    assert len(fits) == 4 and len(asked) == 7
    for name in counts:
        for first, second in zip(counts[name], again[name], strict=True):
            np.testing.assert_array_equal(first.kept, second.kept)
    assert [len(one.shown) for one in counts["one"]] == [8, 8], "a fold: four pictures and four scenes of them"
    assert counts["prototypes"][0].epochs.tolist() == [] and counts["one"][0].epochs.tolist() == [1, 1]
    run("other bags")
    assert len(fits) == 8, "other bags are measured anew"
    lines = ablation.table(rows, counts)
    assert [line[0] for line in lines] == ["one", "two", "prototypes"]
    assert lines[0][-1] == "" and " to " in str(lines[1][-1])


def test_rows_differ_from_their_reference_in_what_their_name_says() -> None:
    rows = {row.name: row for row in ablation.rows_to_measure()}
    assert len(rows) == len(ablation.rows_to_measure())
    two = {
        "early stop": {"epochs", "hold_out"},
        "features of": {"inputs", "choice"},
        "on feat": {"inputs", "prototypes"},
    }
    for row in rows.values():
        if not row.reference:
            continue
        base = rows[row.reference]
        assert not base.reference
        own, other = ({**asdict(r.config), "choice": r.choice, "prototypes": r.prototypes} for r in (row, base))
        differ = {name for name in own if own[name] != other[name]}
        assert len(differ) == 1 or differ in [names for part, names in two.items() if part in row.name], row.name


def test_cells_of_different_settings_have_different_files() -> None:
    names = {ablation.cell_name(row, seed, "bags") for row in ablation.rows_to_measure() for seed in (0, 1)}
    assert len(names) == 2 * len(ablation.rows_to_measure())
    plain = ablation.Row(name="x", config=ablation.BASE)
    other_mask = replace(plain, name="y", choice="whole")
    assert ablation.cell_name(plain, 0, "b") == ablation.cell_name(other_mask, 0, "b"), "tokens know no chosen mask"


def test_rows_by_name_bring_their_reference() -> None:
    names = [row.name for row in ablation.chosen_rows(["shipped: tokens alone"], quick=False)]
    assert names == ["shipped, one head", "shipped: tokens alone"]
    assert len(ablation.chosen_rows([], quick=False)) == len(ablation.rows_to_measure())
    quick = ablation.chosen_rows([], quick=True)
    assert len(quick) == 4 and {row.config.epochs for row in quick} == {ablation.QUICK_EPOCHS}
    with pytest.raises(ValueError, match="no row mil"):
        ablation.chosen_rows(["mil"], quick=False)


@pytest.mark.parametrize("part", [["--quick"], ["--only", "shipped"]])
def test_a_part_of_the_table_needs_a_place(
    part: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--pictures", "none", *part])
    with pytest.raises(SystemExit, match="2"):
        ablation.main()
    assert "--json" in capsys.readouterr().err


def test_some_classes_keep_their_folds() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2, -1, -1])
    examples = tuple(
        Example(path=Path(f"{i}.jpg"), label=int(label), sha256=f"{i:064d}") for i, label in enumerate(labels)
    )

    def scene(*numbers: int) -> Scene:
        tiles = tuple(Tile(example=examples[i], box=(0, 0, 9, 9), mirrored=False) for i in numbers)
        return Scene(tiles=tiles, fold=0)

    cached = CachedPictures(
        classes=("a", "b", "c"),
        examples=examples,
        scenes=(scene(7, 2), scene(0, 2), scene(5, 3)),
        places={},
        shape=TokenShape(prompts=1, token_width=1, feature_width=1),
        skipped=(),
    )
    some = ablation.of_classes(cached, ("c", "b"))
    assert some.classes == ("c", "b") and some.labels.tolist() == [1, 1, 1, 0, 0, -1, -1]
    old = dict(zip([e.sha256 for e in examples], fold_numbers(labels), strict=True))
    assert fold_numbers(some.labels).tolist() == [old[e.sha256] for e in some.examples]
    assert [scene.sha256 for scene in some.scenes] == [cached.scenes[0].sha256, cached.scenes[2].sha256]
    assert [[tile.example.label for tile in scene.tiles] for scene in some.scenes] == [[-1, 1], [0, 1]]
    assert ablation.identity_of(some, "s") != ablation.identity_of(cached, "s") != ablation.identity_of(cached, "t")


def test_a_result_can_be_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(ablation.__file__)
    monkeypatch.setattr(sys, "argv", [str(script), "--quick"])
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    write: Callable[..., None] = result.write_result
    write("trial", title="t", question="q", columns=("a",), rows=[(1,)], path=tmp_path / "there.json")
    assert not (tmp_path / "results").exists()
    found = json.loads((tmp_path / "there.json").read_text())
    assert found["rows"] == [[1]] and found["command"] == "python benchmarks/ablation.py --quick"
    write("trial", title="t", question="q", columns=("a",), rows=[(1,)])
    assert json.loads((tmp_path / "results" / "trial.json").read_text()) == found

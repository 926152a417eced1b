"""Ridge regression against normal equations and refits, the encoders' maps against the module, and the whole script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_photos import SHARED

from gransam_sdk.models.imagenet_teacher import explained
from gransam_sdk.models.nano import ConvNorm, ImageEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import encoders
import probe
import ridge

SEED, TEACHER = SHARED / "models" / "nano-seed.safetensors", SHARED / "models" / "mobilenetv2-imagenet.safetensors"


def regression(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """(f+1,k) weights and bias of the normal equations, the bias without penalty."""
    wide = np.hstack([x, np.ones((len(x), 1))])
    diagonal = np.diag([penalty] * x.shape[1] + [0.0])
    return np.linalg.solve(wide.T @ wide + diagonal, wide.T @ y)


def classes(seed: int, n: int = 60, f: int = 8, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows around the centres of k classes, some of them closer to another one's."""
    random = np.random.default_rng(seed)
    labels = random.integers(k, size=n)
    return random.normal(size=(k, f))[labels] + 1.3 * random.normal(size=(n, f)), labels


def test_left_out_answers_are_those_of_refits() -> None:
    x, labels = classes(0)
    x, y = x - x.mean(axis=0), np.eye(3)[labels]
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    for strength in (1e-3, 0.1, 1.0):
        found = ridge.left_out(u, s, y, strength)
        for row in range(0, len(x), 7):
            rest = np.arange(len(x)) != row
            weights = regression(x[rest], y[rest], len(x) * strength)
            np.testing.assert_allclose(found[row], np.append(x[row], 1) @ weights, atol=1e-9)


def test_the_fit_solves_the_normal_equations_at_the_strength_that_names_most() -> None:
    x, labels = classes(1, n=40, f=30)
    x = x - x.mean(axis=0)
    y = np.eye(3)[labels]
    right = {}
    for strength in ridge.STRENGTHS:
        hits = 0
        for row in range(len(x)):
            rest = np.arange(len(x)) != row
            answer = np.append(x[row], 1) @ regression(x[rest], y[rest], len(x) * strength)
            hits += int(answer.argmax()) == labels[row]
        right[strength] = hits
    assert len(set(right.values())) > 1, "the strength matters here"
    best = max(strength for strength in right if right[strength] == max(right.values()))
    weights, bias = ridge.fit(x, labels)
    wanted = regression(x, y, len(x) * best)
    np.testing.assert_allclose(np.vstack([weights, bias]), wanted, atol=1e-9)


def test_predictions_do_not_hang_on_units_and_use_only_training_rows() -> None:
    x, labels = classes(2, n=90)
    train, test = np.arange(90) < 60, np.arange(90) >= 60
    found = ridge.predict(x[train], labels[train], x[test])
    assert (found == labels[test]).mean() > 0.5
    scaled = x * np.geomspace(1e-3, 1e3, x.shape[1]) + 7
    np.testing.assert_array_equal(found, ridge.predict(scaled[train], labels[train], scaled[test]))
    moved = np.vstack([x[test], 100 + x[test]])
    np.testing.assert_array_equal(found, ridge.predict(x[train], labels[train], moved)[:30])
    constant = np.hstack([x, np.ones((90, 1))])
    np.testing.assert_array_equal(found, ridge.predict(constant[train], labels[train], constant[test]))


def test_held_out_pictures_are_not_in_their_probe() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(200, 150)), random.integers(4, size=200)
    folds = np.arange(200) % 5
    right = probe.held_out(features, labels, folds)
    assert right.mean() < 0.45, "noise names nothing; a probe that saw its pictures would name nearly all"
    shown = np.eye(4)[labels] + 0.1 * random.normal(size=(200, 4))
    assert probe.held_out(shown, labels, folds).all()


def test_folds_are_a_matter_of_the_path_alone() -> None:
    paths = [Path(f"cat/{number:03}.jpg") for number in range(400)]
    folds = [probe.fold_of(path) for path in paths]
    assert folds[:8] == [probe.fold_of(Path("cat", path.name)) for path in paths[:8]]
    assert min(folds.count(fold) for fold in range(probe.FOLDS)) > 50 and set(folds) == set(range(probe.FOLDS))


def test_share_is_explained_batch_by_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(9, 5, 4, 4, generator=generator) * torch.arange(1, 6)[:, None, None] + 3
    found = wanted + 0.5 * torch.randn(9, 5, 4, 4, generator=generator)
    share = encoders.Share(5)
    assert np.isnan(share.value())
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        share.add(found[part], wanted[part])
    assert share.value() == pytest.approx(float(explained(found.double(), wanted.double())), abs=1e-6)
    assert 0.5 < share.value() < 1


def test_maps_are_the_encoders_own_and_the_random_start_is_one_and_alive() -> None:
    images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    state = torch.random.get_rng_state()
    encoder = encoders.random_encoder([images[:3], images[3:]], "cpu")
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        stride16, stride32 = encoders.encoder_maps(encoder)(images)
        features = encoder(images)[3]
    assert stride16.shape == (6, 96, 4, 4) and stride32.shape == (6, 320, 2, 2)
    torch.testing.assert_close(features[:, :96], stride16)
    torch.testing.assert_close(features[:, 96:].mean((2, 3)), stride32.mean((2, 3)))  # doubling keeps means
    assert stride32.std() > 0.1
    again = encoders.random_encoder([images[:3], images[3:]], "cpu")
    other = encoders.random_encoder([images[:3], images[3:]], "cpu", seed=1)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(encoder.lateral16.weight, other.lateral16.weight)
    stem = next(module for module in encoder.modules() if isinstance(module, ConvNorm))
    values = torch.stack([stem.conv(torch.nn.functional.pad(part, (0, 1, 0, 1))) for part in images.split(3)])
    torch.testing.assert_close(stem.norm.running_mean, values.detach().mean((0, 1, 3, 4)))
    assert isinstance(encoder, ImageEncoder) and not encoder.training


@pytest.mark.shared
@pytest.mark.skipif(not SEED.exists(), reason="needs ../shared/models")
def test_the_whole_script_on_a_few_pictures(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aeroplane", "cat", "motorbike"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for picture in sorted((shared / "data" / "web20" / name).iterdir())[:16]:
            (tmp_path / "pictures" / name / picture.name).symlink_to(picture)
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo in sorted((shared / "data" / "coco_dev" / "images").iterdir())[:3]:
        (photos / photo.name).symlink_to(photo)
    file = tmp_path / "result.json"
    arguments = [SEED, "--teacher", TEACHER, "--pictures", tmp_path / "pictures", "--photos", photos, "--json", file]
    script = Path(__file__).parents[1] / "benchmarks" / "probe.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments), "--side", "96"])
    probe.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert all(len(row) == len(result["columns"]) == 9 for row in result["rows"])
    rows = {row[0]: row[1:] for row in result["rows"]}
    assert list(rows) == [probe.TEACHER, probe.RANDOM, "nano-seed"]
    assert rows[probe.TEACHER][2] > 80 and rows["nano-seed"][2] > 60, "of three classes, at stride 32"
    assert rows[probe.TEACHER][2] > rows[probe.RANDOM][2]
    assert rows[probe.TEACHER][4:] == rows[probe.RANDOM][4:] == [None] * 4
    of16, of32, apart16, apart32 = rows["nano-seed"][4:]
    assert 50 < of16 < 100 and 10 < of32 < of16 and 50 < apart16 < 100 and apart32 < apart16, "distilled, not copied"

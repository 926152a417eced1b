"""From class folders to bags, through the token cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pictures import make_pictures, write_picture

from gransam_sdk.errors import InputError, OutputError
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.model import Model, Prompts
from gransam_sdk.runtime.select import choose_masks
from gransam_sdk.training.token_shard import is_whole
from gransam_sdk.training.tokens import cache_pictures, extract_bags, find_pictures, load_bags
from gransam_sdk.types import MaskChoice, PointGrid


def prompts_of(model: Model, path: Path) -> Prompts:
    """What the graphs say of a picture, all prompts at once."""
    pixels = as_pixels(path)
    frame = model.frame(pixels)
    points = PointGrid(per_side=model.bundle.points_per_side).points()
    return next(model.prompt(model.hoist(model.prepare(pixels, frame)), frame, points, len(points)))


def test_bags_from_class_folders(tmp_path: Path) -> None:
    make_pictures(tmp_path, classes=("blue", "red"))
    make_pictures(tmp_path, 1, classes=("_background",))
    write_picture(tmp_path / "_later" / "0.png", (1, 2, 3))
    (tmp_path / "red" / "broken.jpg").write_bytes(b"these bytes are no picture")
    (tmp_path / "red" / "empty.jpg").touch()
    bags = extract_bags(fake_model(fake_bundle()), tmp_path)
    assert bags.classes == ("blue", "red")
    assert bags.labels.tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert bags.instances.shape == (7, 36, 4 * 8 + 6) and bags.token_width == 32
    assert [(Path(path).name, reason) for path, reason in bags.skipped] == [
        ("broken.jpg", "format"),
        ("empty.jpg", "empty"),
    ]
    is_red = bags.instances[:, 35, 0] > bags.instances[:, 35, 2]  # the fake's tokens begin with the clicked colour
    assert is_red.tolist() == [False] * 3 + [True] * 3 + [False]


class Varied(Model):
    """A fake whose four masks differ in everything that is kept of them, and whose first mask is stable or not."""

    def prompt(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        for part in super().prompt(*args, **kwargs):
            rng = np.random.default_rng(int(1e6 * part.points.sum()))
            draw = [rng.normal(size=array.shape).astype(np.float32) for array in (part.tokens, part.features)]
            lattice = rng.normal(size=part.lattice.shape).astype(np.float32)
            lattice[::2] += np.sign(lattice[::2])  # no logits near 0: stable
            yield Prompts(
                points=part.points,
                tokens=draw[0],
                features=draw[1],
                iou=rng.uniform(size=part.iou.shape).astype(np.float32),
                lattice=lattice,
                state=part.state,
            )


@pytest.mark.parametrize("choice", get_args(MaskChoice))
def test_every_mask_choice_comes_from_one_pass(tmp_path: Path, choice: MaskChoice) -> None:
    make_pictures(tmp_path, 2)
    bundle = fake_bundle(points_per_side=4)  # one chunk, so that the draws are the same below
    plain = fake_model(bundle)
    model = Varied(bundle, plain._sessions)
    cached = cache_pictures(model, tmp_path)
    bags = load_bags(cached, choice)
    prompts = prompts_of(model, tmp_path / "blue" / "1.png")
    chosen = choose_masks(choice, prompts.iou, prompts.lattice)[:, 0]
    if choice == "stable":
        assert 0 < np.count_nonzero(chosen) < len(chosen)
    features = prompts.features[np.arange(len(chosen)), chosen]
    expected = np.concatenate([prompts.tokens.reshape(len(chosen), -1), features], axis=1).astype(np.float16)
    assert np.array_equal(bags.instances[1], expected)
    assert bags.rim.shape == (4, 16) and bags.rim.dtype == np.float16
    masks = prompts.lattice[np.arange(len(chosen)), chosen] > 0  # the picture fills the lattice
    edge = np.concatenate([masks[:, 0], masks[:, -1], masks[:, 1:-1, 0], masks[:, 1:-1, -1]], axis=1)
    assert np.array_equal(bags.rim[1], edge.mean(axis=1).astype(np.float16)) and len(set(bags.rim[1])) > 8


def test_copies_within_a_class_are_left_out_with_a_note(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    shutil.copy(tmp_path / "red" / "1.png", tmp_path / "red" / "again.png")
    bags = extract_bags(fake_model(fake_bundle()), tmp_path)
    assert bags.labels.tolist() == [0, 0, 0, 1, 1, 1]
    note = f"the same picture as {tmp_path / 'red' / '1.png'}"
    assert bags.skipped == ((str(tmp_path / "red" / "again.png"), note),)


@pytest.mark.parametrize("other", ["blue", "_background"])
def test_a_picture_in_two_class_folders_names_both_files(tmp_path: Path, other: str, own_cache: Path) -> None:
    make_pictures(tmp_path)
    make_pictures(tmp_path, 1, classes=("_background",))
    shutil.copy(tmp_path / "red" / "1.png", tmp_path / other / "same.png")
    with pytest.raises(InputError) as caught:
        extract_bags(fake_model(fake_bundle()), tmp_path)
    assert str(tmp_path / "red" / "1.png") in caught.value.found
    assert str(tmp_path / other / "same.png") in caught.value.found
    assert not own_cache.exists(), "said before anything is done"


def test_unusable_folders_say_what_to_do(tmp_path: Path) -> None:
    model = fake_model(fake_bundle())
    with pytest.raises(InputError, match="no class folders"):
        extract_bags(model, tmp_path)
    make_pictures(tmp_path, 1, classes=("red",))
    with pytest.raises(InputError, match="two classes"):
        extract_bags(model, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        extract_bags(model, tmp_path)
    (tmp_path / "empty" / "0.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="none that can be read"):
        extract_bags(model, tmp_path)


def test_one_picture_of_a_class_is_one_bag(tmp_path: Path) -> None:
    make_pictures(tmp_path, 3, classes=("blue",))
    make_pictures(tmp_path, 1, classes=("red",))
    (tmp_path / "red").rename(tmp_path / "red 🦊")
    bags = extract_bags(fake_model(fake_bundle()), tmp_path)
    assert bags.classes == ("blue", "red 🦊") and bags.labels.tolist() == [0, 0, 0, 1]


def test_a_shard_that_went_away_is_an_error_with_advice(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures")
    cached = cache_pictures(fake_model(fake_bundle()), tmp_path / "pictures", scenes=False, cache=tmp_path / "cache")
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    assert is_whole(shard)
    shard.unlink()
    with pytest.raises(OutputError, match="run the same command again"):
        load_bags(cached)


def test_pictures_are_found_from_here(tmp_path: Path) -> None:
    assert len(find_pictures(make_pictures(tmp_path))[1]) == 6

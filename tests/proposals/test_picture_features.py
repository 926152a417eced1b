"""Features of colour and texture: CIELAB against scikit-image, means against loops, and what they tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.divide_conquer import propose
from gransam_sdk.proposals.picture_features import (
    average,
    cell_measures,
    combine,
    fourier_features,
    grid_shape,
    picture_features,
    resample,
    smooth,
    standardise,
    to_lab,
)


def test_lab_is_that_of_scikit_image() -> None:
    from skimage.color import rgb2lab

    steps = np.arange(0, 256, 15, dtype=np.uint8)
    pixels = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    assert to_lab(pixels).dtype == np.float32
    assert np.abs(to_lab(pixels) - rgb2lab(pixels)).max() < 0.03  # its matrix has two digits more


@pytest.mark.parametrize(("size", "shape"), [((9, 13), (4, 5)), ((8, 8), (8, 8)), ((3, 5), (7, 2))])
def test_means_are_those_of_blocks(size: tuple[int, int], shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((*size, 2)).astype(np.float32)
    means = average(values, shape)
    assert means.shape == (*shape, 2)
    for i in range(shape[0]):
        for j in range(shape[1]):
            y0, y1, x0, x1 = i * size[0] // shape[0], (i + 1) * size[0] // shape[0], j * size[1] // shape[1], 0
            x1 = (j + 1) * size[1] // shape[1]
            block = values[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
            assert means[i, j] == pytest.approx(block.mean(axis=(0, 1)), abs=1e-6)


def test_smoothing_is_a_convolution() -> None:
    values = np.random.default_rng(1).random((6, 7)).astype(np.float32)
    kernel, padded = np.outer([1, 2, 1], [1, 2, 1]) / 16, np.pad(values, 1, mode="edge")
    slow = [[(padded[i : i + 3, j : j + 3] * kernel).sum() for j in range(7)] for i in range(6)]
    assert smooth(values) == pytest.approx(np.array(slow), abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (12, 9), (6, 1), (1, 1)])
def test_resampling_is_bilinear(shape: tuple[int, int]) -> None:
    import torch

    values = np.random.default_rng(2).random((6, 5, 3))
    grid = torch.from_numpy(values).permute(2, 0, 1)[None]
    slow = torch.nn.functional.interpolate(grid, size=shape, mode="bilinear", align_corners=False)[0]
    assert resample(values, shape) == pytest.approx(slow.permute(1, 2, 0).numpy(), abs=1e-6)
    assert resample(values[:1, :1], shape) == pytest.approx(np.broadcast_to(values[:1, :1], (*shape, 3)), abs=1e-6)


def test_cells_are_nearly_square() -> None:
    assert grid_shape((480, 640), 56) == (42, 56)
    assert grid_shape((1000, 10), 20) == (20, 1)
    with pytest.raises(InputError):
        grid_shape((0, 9), 5)


def stripes(direction: str, side: int = 96) -> np.ndarray:
    """Black and white, six pixels each: blocks of twelve pixels have one mean colour in every direction."""
    y, x = np.mgrid[:side, :side]
    phase = {"down": y, "across": x, "diagonal": x + y}[direction]
    return np.repeat((255 * (phase // 6 % 2))[..., None], 3, axis=2).astype(np.uint8)


def test_texture_tells_directions_apart_where_colour_does_not() -> None:
    photo = np.concatenate([stripes("down"), stripes("across"), stripes("diagonal")], axis=1)
    colour = cell_measures(photo, (8, 24))[1:-1, :, :3]
    assert colour.std(axis=(0, 1)).max() < 8, "the colours differ: the test proves nothing"
    features = picture_features(photo, (8, 24))
    inner = [features[1:-1, 8 * i + 1 : 8 * i + 7].reshape(-1, features.shape[-1]) for i in range(3)]
    for i in range(3):
        within = np.linalg.norm(inner[i] - inner[i].mean(axis=0), axis=1).max()
        between = min(np.linalg.norm(inner[i].mean(axis=0) - inner[j].mean(axis=0)) for j in range(3) if j != i)
        assert between > 2 * within


def test_a_flat_photo_has_no_features() -> None:
    assert not picture_features(np.full((60, 80, 3), 90, dtype=np.uint8), (6, 8)).any()


def test_measures_do_not_depend_on_the_size_of_the_photo(sample_photos: dict[str, Path]) -> None:
    photo = Image.open(sample_photos["chelsea.png"]).convert("RGB")
    whole = cell_measures(np.asarray(photo), (12, 18))
    half = cell_measures(np.asarray(photo.reduce(2)), (12, 18))
    correlations = [np.corrcoef(whole[..., c].ravel(), half[..., c].ravel())[0, 1] for c in range(whole.shape[-1])]
    assert min(correlations) > 0.9


def test_cosines_of_fourier_features_are_those_of_a_bell() -> None:
    values = 10 * np.random.default_rng(5).standard_normal((8, 8, 3)).astype(np.float32)
    cells, features = values.reshape(64, 3), fourier_features(values, 15.0).reshape(64, -1)
    distances = ((cells[:, None] - cells) ** 2).sum(axis=-1)
    cosines = features @ features.T / np.outer(*[np.linalg.norm(features, axis=1)] * 2)
    error = cosines - np.exp(-distances / (2 * 15.0**2))
    assert np.abs(error).max() < 0.45 and np.sqrt((error**2).mean()) < 0.12  # 64 draws have a spread of about 0.09


def test_standardised_cells_are_centred_and_of_length_one_in_the_mean() -> None:
    values = np.random.default_rng(3).random((6, 7, 3)).astype(np.float32) * (1, 100, 1e-3) + 5
    made = standardise(values)
    assert np.abs(made.mean(axis=(0, 1))).max() < 1e-6
    assert (made**2).sum(axis=-1).mean() == pytest.approx(1, abs=1e-4)
    ratio = made.std(axis=(0, 1)) / values.std(axis=(0, 1))
    assert ratio == pytest.approx(np.full(3, ratio[0]), rel=1e-3), "channels keep their sizes to one another"


def test_cosines_of_the_whole_are_means_of_the_kinds() -> None:
    random = np.random.default_rng(4)
    colour, teacher = random.random((5, 6, 3)).astype(np.float32), random.random((7, 5, 6)).astype(np.float32)
    for weight in (0.0, 0.3, 1.0):
        both = combine(colour, teacher, weight)
        assert both.shape == (5, 6, 10) and both.dtype == np.float32
        mine, its = standardise(colour), standardise(teacher.transpose(1, 2, 0))
        expected = (1 - weight) * mine[1, 2] @ mine[3, 3] + weight * its[1, 2] @ its[3, 3]
        assert both[1, 2] @ both[3, 3] == pytest.approx(expected, abs=1e-5)


def test_two_colours_are_found_as_two_regions() -> None:
    photo = np.zeros((120, 160, 3), dtype=np.uint8)
    photo[:] = (40, 90, 200)
    photo[30:90, 40:100] = (200, 60, 40)
    features = picture_features(photo, (24, 32))
    outer, inner = propose(features, levels=[0.0], size=(120, 160))
    assert inner.mask[32:88, 42:98].all() and not inner.mask[:28].any() and not inner.mask[:, 104:].any()
    assert (outer.mask ^ inner.mask).mean() > 0.99


@pytest.mark.parametrize(
    "photo", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_photo_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="photo"):
        picture_features(photo, (2, 2))


def test_features_that_do_not_fit_are_refused() -> None:
    colour, teacher = np.zeros((4, 5, 3), np.float32), np.zeros((2, 3, 4), np.float32)
    with pytest.raises(InputError):
        combine(colour, teacher, 1.5)
    with pytest.raises(InputError):
        combine(colour[0], teacher, 0.5)

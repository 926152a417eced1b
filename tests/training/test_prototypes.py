"""The head of nearest prototypes."""

from __future__ import annotations

import numpy as np
import torch
from bags_by_hand import CLASSES, INSTANCES, WIDTH, noisy_bags, one_head

from gransam_sdk.models.head import PrototypeHead
from gransam_sdk.training.calibrate import calibrate
from gransam_sdk.training.instances import spread
from gransam_sdk.training.prototypes import PROTOTYPES, fit_prototypes, k_means, pooled_instances
from gransam_sdk.training.split import split_bags


def test_logits_are_scaled_distances_to_the_nearest_prototype() -> None:
    rng = np.random.default_rng(0)
    prototypes, x = rng.normal(size=(3, 2, 5)), rng.normal(size=(7, 5))
    mean, deviation = rng.normal(size=5), rng.uniform(0.5, 2, size=5)
    head = PrototypeHead(*(torch.from_numpy(a).float() for a in (prototypes, mean, deviation)))
    head.scale.fill_(0.3)
    z = (x - mean) / deviation
    distances = ((z[:, None, None] - prototypes) ** 2).sum(-1).min(-1)
    expected = torch.from_numpy(-0.3 * distances).softmax(1)
    found = head(torch.from_numpy(x).float())
    np.testing.assert_allclose(found.softmax(1).numpy(), expected.numpy(), atol=1e-5)
    head.fold_temperature(2.0)
    torch.testing.assert_close(head(torch.from_numpy(x).float()), found / 2)
    assert head(torch.zeros(2, 4, 5)).shape == (2, 4, 3)


def test_k_means_finds_the_clusters_and_survives_few_points() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = torch.from_numpy(np.concatenate([c + rng.normal(size=(50, 2)) * 0.2 for c in centres]))
    found = k_means(points, 4, np.random.default_rng(1)).numpy()
    nearest = np.linalg.norm(found[:, None] - centres, axis=2).min(0)
    assert nearest.max() < 0.2
    assert torch.equal(k_means(points[:1], 3, rng), points[[0, 0, 0]])


def test_pooling_picks_the_instances_that_carry_the_class() -> None:
    bags = noisy_bags()
    rows = bags.labels >= 0
    instances, labels = torch.from_numpy(bags.instances[rows]), torch.from_numpy(bags.labels[rows])
    top, low = pooled_instances(instances, labels, *spread(instances), classes=CLASSES, divisor=8)
    assert (top.sum(1) == 3).all() and (low.sum(1) == INSTANCES // 2).all() and not (top & low).any()
    assert top[:, : INSTANCES // 4].sum() / top.sum() > 0.95
    assert low[:, : INSTANCES // 4].sum() / low.sum() < 0.01


def test_prototypes_label_what_was_never_seen() -> None:
    config = one_head()
    fitted = fit_prototypes(noisy_bags(), config)
    assert fitted.head.prototypes.shape == (CLASSES + 1, PROTOTYPES, WIDTH)
    assert fitted.bag_accuracy > 0.95
    bags = noisy_bags(count=240)
    x, labels = torch.from_numpy(bags.instances[120:].astype(np.float32)), torch.from_numpy(bags.labels[120:])
    answer = fitted.head(x).argmax(2)
    carriers = labels >= 0
    assert (answer[carriers, : INSTANCES // 4] == labels[carriers, None]).float().mean() > 0.9
    assert (answer[~carriers] == CLASSES).float().mean() > 0.9
    again = fit_prototypes(noisy_bags(), config).head.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in fitted.head.state_dict().items())


def test_prototypes_are_calibrated_like_any_head() -> None:
    config = one_head()
    rest, held = split_bags(noisy_bags(count=200), 0.3, seed=0)
    head = fit_prototypes(rest, config).head
    before = float(head.scale)
    found = calibrate(head, held, config)
    assert float(head.scale) == before, "the caller folds the temperature in"
    assert 0.5 <= found.facts.temperature <= 5.0
    assert all(0.5 <= value <= 0.95 for value in found.thresholds)

"""Ridge regression to one-hot classes, in closed form, its strength chosen by leaving each row out once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gransam_sdk.shapes import Int

Float64: TypeAlias = NDArray[np.float64]

STRENGTHS = tuple(float(10.0**power) for power in np.arange(-4, 1.01, 0.5))
"""Of the penalty, a row and unit of variance: with 1, half of a direction of unit variance is left."""


def predict(train: Float64, labels: Int, test: Float64) -> Int:
    """Classes of test rows by a classifier that is fitted on training rows.

    Columns are standardised by the training rows.

    Args:
        train: (n,f).
        labels: (n,) from 0.
        test: (m,f).

    Returns:
        (m,) the class of the largest answer.
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    x, z = (train - mean) / deviation, (test - mean) / deviation
    weights, bias = fit(x, labels)
    best: Int = (z @ weights + bias).argmax(axis=1)
    return best


def fit(x: Float64, labels: Int) -> tuple[Float64, Float64]:
    """Weights (f,k) and bias (k,) at the strength whose left-out answers name most rows; of equal ones the largest.

    Args:
        x: (n,f), every column's mean 0.
        labels: (n,) from 0.
    """
    y = np.eye(int(labels.max()) + 1)[labels]
    bias = y.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    target = u.T @ (y - bias)
    right = [int((left_out(u, s, y, strength).argmax(axis=1) == labels).sum()) for strength in STRENGTHS]
    strength = max(zip(right, STRENGTHS, strict=True))[1]
    weights: Float64 = vt.T @ ((s / (s**2 + len(x) * strength))[:, None] * target)
    return weights, bias


def left_out(u: Float64, s: Float64, y: Float64, strength: float) -> Float64:
    """(n,k) answers for each row by the regression without it, without fitting it anew.

    Of a linear smoother H the left-out residual is the residual over 1 - H[i,i] (Allen 1974); the bias, which is not
    penalised, adds 1/n to H.
    """
    n = len(y)
    share = s**2 / (s**2 + n * strength)
    hat = (u**2) @ share + 1 / n
    bias = y.mean(axis=0)
    residual = y - bias - u @ (share[:, None] * (u.T @ (y - bias)))
    answers: Float64 = y - residual / (1 - hat)[:, None]
    return answers

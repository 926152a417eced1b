"""The runtime refuses a bundle by its figures, before any engine sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import good_parts

from gransam_sdk.bundle import open_bundle
from gransam_sdk.errors import BundleError
from gransam_sdk.runtime import load as loading
from gransam_sdk.runtime.load import load, load_model

GOOD = {
    "masks": 1200,
    "tokens_cosine_min": 0.9995,
    "tokens_relative_norm": 1e-3,
    "sign_flips": 1e-4,
    "mask_iou_p1": 0.97,
}


def write(folder: Path, precision: str, **parity: object) -> Path:
    parts = good_parts()
    parts.manifest["precision"] = precision
    parts.manifest["parity"] |= parity
    return parts.write(folder)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_reduced_precision_runs_with_figures_and_not_without(precision: str, tmp_path: Path) -> None:
    with load(write(tmp_path / "good", precision, **GOOD), device="cpu") as segmenter:
        assert segmenter.fingerprint["precision"] == precision
    with pytest.raises(BundleError, match="tokens_cosine_min missing"):
        load(write(tmp_path / "bare", precision), device="cpu")
    with pytest.raises(BundleError, match=r"sign_flips 0\.02"):
        load(write(tmp_path / "broken", precision, **GOOD | {"sign_flips": 0.02}), device="cpu")


@pytest.mark.parametrize(
    ("precision", "parity", "says"),
    [
        ("fp32-w16", {"tokens_max_abs": 0.002}, "tokens_max_abs <= 0.001"),
        ("fp32", {"mask_iou_mean": 0.999}, "mask_iou_mean 0.999"),
        ("fp32", {"kept_f1": 0.9}, "kept_f1 0.9"),
        ("fp32", {"verdict": "unverified"}, "unverified"),
        ("int8", GOOD | {"verdict": "unverified"}, "unverified"),
    ],
)
def test_no_engine_sees_what_is_refused(
    precision: str, parity: dict[str, object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(write(tmp_path / "bundle", precision, **parity))
    monkeypatch.setattr(loading, "open_sessions", lambda *_: pytest.fail("an engine saw it"))
    with pytest.raises(BundleError, match=says):
        load_model(bundle, device="cpu")


def test_the_embedded_bundle_keeps_its_bars() -> None:
    load_model(open_bundle("nano-voc20"), device="cpu").close()

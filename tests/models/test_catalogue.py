"""The catalogue of official weights: facts against published ones, and addresses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from gransam_sdk.errors import InputError
from gransam_sdk.models.catalogue import CATALOGUE, find_weights

PARAMETERS = {
    "sam-vit-b": 93.7e6,
    "sam-vit-l": 312.3e6,
    "sam-vit-h": 641.1e6,
    "mobile-sam": 10.13e6,
    "sam2.1-hiera-tiny": 38.9e6,
    "sam2.1-hiera-small": 46.0e6,
    "sam2.1-hiera-base-plus": 80.8e6,
    "sam2.1-hiera-large": 224.4e6,
}
"""As published by the makers (MobileSAM: in its paper)."""


def test_sizes_are_those_of_float32_parameters() -> None:
    assert {weights.name for weights in CATALOGUE} == set(PARAMETERS)
    for weights in CATALOGUE:
        assert weights.bytes == pytest.approx(4 * PARAMETERS[weights.name], rel=0.01), weights.name


def test_names_files_and_hashes_are_proper_and_all_different() -> None:
    for field in ("name", "file", "sha256", "bytes"):
        values = [getattr(weights, field) for weights in CATALOGUE]
        assert len(set(values)) == len(values), field
    for weights in CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", weights.sha256)
        assert re.fullmatch(r"[a-z0-9.-]+", weights.name) and re.fullmatch(r"[\w.]+\.(pth|pt)", weights.file)
        assert weights.licence == "Apache-2.0" and weights.project.startswith("https://github.com/")


def test_addresses_are_the_makers_own() -> None:
    hosts = {"dl.fbaipublicfiles.com", "raw.githubusercontent.com"}
    for weights in CATALOGUE:
        parts = urlsplit(weights.address())
        assert (parts.scheme, parts.hostname in hosts, parts.path.rpartition("/")[2]) == ("https", True, weights.file)
    assert find_weights("sam-vit-b").address() == "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
    assert re.search(r"/MobileSAM/[0-9a-f]{40}/weights/", find_weights("mobile-sam").address()), "a commit, no branch"


@pytest.mark.parametrize("mirror", ["https://mirror.example/w", "https://mirror.example/w/", "http://10.0.0.1:8000"])
def test_a_mirror_takes_the_place_of_the_folder(mirror: str) -> None:
    assert find_weights("mobile-sam").address(mirror) == f"{mirror.rstrip('/')}/mobile_sam.pt"


@pytest.mark.parametrize(
    "mirror", ["", "ftp://x", "file:///etc", "mirror.example", "https://", "https://[x", "http://x/?a=b"]
)
def test_what_is_no_mirror_is_refused(mirror: str) -> None:
    with pytest.raises(InputError, match="--mirror"):
        find_weights("mobile-sam").address(mirror)


@pytest.mark.parametrize(
    ("name", "near"), [("sam-vit-x", "sam-vit-"), ("MobileSAM", "mobile-sam"), ("zzz", "one of sam-vit-b,")]
)
def test_an_unknown_name_meets_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=near) as caught:
        find_weights(name)
    assert caught.value.do == "gransam models list"

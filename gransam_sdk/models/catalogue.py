"""Official weights that can be fetched: names, addresses, sizes, hashes and licences.

The makers' pages name no sha256. Those below are what independent projects pin for the official addresses; the sources
are named beside each group. Weights without a known hash are recorded at the first pull instead. The six hex digits in
the names of SAM's files begin the MD5, not the sha256.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import InputError

_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_MOBILE_SAM = (  # a commit, not a branch: what is there cannot change
    "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One file of official weights.

    Attributes:
        name: What commands call it.
        about: What it is, in a few words.
        file: The maker's file name; a mirror has it under the same.
        base: Address of its folder.
        bytes: Its size.
        sha256: Its hash in hex; empty where none is known.
        licence: SPDX identifier of the weights' licence.
        project: The maker's page.
    """

    name: str
    about: str
    file: str
    base: str
    bytes: int
    sha256: str
    licence: str
    project: str

    def address(self, mirror: str | None = None) -> str:
        """Where the file is fetched from.

        Args:
            mirror: Address of a folder that has the file under its own name; None for the maker's.

        Raises:
            InputError: The mirror is no web address of a folder.
        """
        return f"{(self.base if mirror is None else _checked(mirror)).rstrip('/')}/{self.file}"


def _sam(size: str, *, file: str, bytes: int, sha256: str) -> Weights:
    return Weights(
        name=f"sam-vit-{size.lower()}",
        about=f"Segment Anything, ViT-{size}",
        file=file,
        base=_SAM,
        bytes=bytes,
        sha256=sha256,
        licence="Apache-2.0",
        project="https://github.com/facebookresearch/segment-anything",
    )


def _sam2(size: str, *, bytes: int, sha256: str) -> Weights:
    return Weights(
        name=f"sam2.1-hiera-{size.replace('_', '-')}",
        about=f"Segment Anything 2.1, Hiera {size.replace('_', ' ')}",
        file=f"sam2.1_hiera_{size}.pt",
        base=_SAM2,
        bytes=bytes,
        sha256=sha256,
        licence="Apache-2.0",
        project="https://github.com/facebookresearch/sam2",
    )


CATALOGUE = (
    # sha256: computational-cell-analytics/micro-sam, micro_sam/util.py (_CHECKSUMS), and 3D Slicer's SAM extension.
    # Sizes: the model lists of annotation tools that pin the same hashes.
    _sam(
        "B",
        file="sam_vit_b_01ec64.pth",
        bytes=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "L",
        file="sam_vit_l_0b3195.pth",
        bytes=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "H",
        file="sam_vit_h_4b8939.pth",
        bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    # sha256: micro-sam as above ("vit_t"); size and commit: two annotation tools that pin the same hash.
    Weights(
        name="mobile-sam",
        about="MobileSAM, TinyViT",
        file="mobile_sam.pt",
        base=_MOBILE_SAM,
        bytes=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        licence="Apache-2.0",
        project="https://github.com/ChaoningZhang/MobileSAM",
    ),
    # sha256: micro-sam, micro_sam/v2 (HASHES). Sizes: projects that pin the same hashes; small and large as they are in
    # Hugging Face facebook/sam2.1-hiera-small and -large too.
    _sam2(
        "tiny",
        bytes=156_008_466,
        sha256="7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    _sam2(
        "small",
        bytes=184_416_285,
        sha256="6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    _sam2(
        "base_plus",
        bytes=323_606_802,
        sha256="a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    _sam2(
        "large",
        bytes=898_083_611,
        sha256="2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)


def find_weights(name: str) -> Weights:
    """The weights of a name.

    Raises:
        InputError: There are none; names the nearest.
    """
    by_name = {weights.name: weights for weights in CATALOGUE}
    if name not in by_name:
        near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.5)
        raise InputError(
            f"weights {name!r}",
            expected=f"a name such as {near[0]}" if near else f"one of {', '.join(by_name)}",
            found="an unknown name",
            do="gransam models list",
        )
    return by_name[name]


def _checked(mirror: str) -> str:
    try:
        parts = urlsplit(mirror)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        whole = False
    if not whole:
        raise InputError("--mirror", expected="an address such as https://mirror.example/weights", found=repr(mirror))
    return mirror

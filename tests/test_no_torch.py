"""The runtime needs no torch: with the heavy libraries made unimportable it still does all of its work."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = ("torch", "torchvision", "cv2", "scipy", "pandas", "skimage", "matplotlib", "onnx", "pycocotools")

GUARD = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BANNED!r}:
            raise ModuleNotFoundError(f"{{name}} is not to be imported here", name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_guarded(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = GUARD + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "code",
    [
        "import gransam_sdk",
        "import gransam_sdk as gs; [getattr(gs, name) for name in gs.__all__]",
        "import gransam_sdk.runtime, gransam_sdk.runtime.load, gransam_sdk.runtime.fake_session",
        "import gransam_sdk.annotate.run, gransam_sdk.annotate.report, gransam_sdk.evaluation.voc",
        "import gransam_sdk.cli",
    ],
)
def test_imports_without_heavy_libraries(code: str) -> None:
    done = run_guarded(code)
    assert done.returncode == 0, done.stderr


def test_annotating_a_photo_without_heavy_libraries(tmp_path: Path, sample_photos: dict[str, Path]) -> None:
    run = tmp_path / "run"
    code = """
    from gransam_sdk.cli import main
    main()
    """
    done = run_guarded(
        code, "annotate", str(sample_photos["chelsea.png"]), "-o", str(run), "--overlays", "--to", "coco,voc"
    )
    assert done.returncode == 0, done.stderr
    assert (run / "records" / "chelsea.png.json").is_file()


@pytest.mark.parametrize("name", BANNED)
def test_the_guard_can_fail(name: str) -> None:
    done = run_guarded(f"import {name}")
    assert done.returncode == 1
    assert f"{name} is not to be imported here" in done.stderr


def as_command(*arguments: str) -> str:
    return f"""
import contextlib, sys
sys.argv = ["gransam", *{arguments!r}]
from gransam_sdk.cli import main
with contextlib.suppress(SystemExit):
    main()
"""


@pytest.mark.parametrize(
    "code",
    ["import gransam_sdk", as_command("--help"), as_command("--version"), as_command("annotate", "--help")],
    ids=["import", "help", "version", "help of annotate"],
)
def test_the_start_loads_no_numpy(code: str) -> None:
    """What keeps the import budgets; benchmarks/import_time.py measures them."""
    check = "\nimport sys\nprint({'numpy', 'PIL', 'rich', 'onnxruntime'} & set(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "set()\n")


def test_the_check_of_the_start_can_fail() -> None:
    with pytest.raises(AssertionError):
        test_the_start_loads_no_numpy("import numpy")

"""The wheel as a user gets it: built from a copy of the checkout, installed into an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("gransam_sdk", "export", "cli.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")
MAX_BYTES = 20_000_000


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"],
        check=True,
        timeout=300,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` folder of a clean environment that holds the wheel with its ``cpu`` extra and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=False)  # this environment's pip installs into it, in half the time
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, *PIP, "--python", python, "install", "--no-compile", f"{wheel}[cpu]"],
        check=True,
        timeout=600,
        cwd=folder,
    )
    return python.parent


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in archive.namelist() if ".dist-info/licenses/" in name}
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "gransam_sdk").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    wanted |= {f"gransam_sdk/export/{path.relative_to(ROOT / 'export')}" for path in (ROOT / "export").rglob("*.py")}
    assert names == wanted
    assert "gransam_sdk/py.typed" in names
    assert licences == {"LICENSE", "NOTICE"}
    assert wheel.stat().st_size <= MAX_BYTES


def test_the_wheel_holds_the_embedded_bundle(wheel: Path) -> None:
    bundle = "gransam_sdk/bundles/nano-voc20"
    with zipfile.ZipFile(wheel) as archive:
        manifest = json.loads(archive.read(f"{bundle}/gransam.json"))
        held = {name.removeprefix(f"{bundle}/") for name in archive.namelist() if name.startswith(f"{bundle}/")}
    assert {graph["file"] for graph in manifest["graphs"].values()} <= held


@pytest.mark.slow
def test_the_installed_command_works(installed: Path, tmp_path: Path, sample_photos: dict[str, Path]) -> None:
    version = run(installed / "gransam", "--version", cwd=tmp_path)
    assert (version.returncode, version.stdout) == (0, f"gransam-sdk {_version()}\n")
    doctor = run(installed / "gransam", "doctor", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stderr
    assert "bundle nano-voc20: verified" in doctor.stdout
    done = run(installed / "gransam", "annotate", sample_photos["chelsea.png"], "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "records" / "chelsea.png.json").read_text(encoding="utf-8"))
    assert "cat" in {annotation["class"] for annotation in record["annotations"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cli", "export", "tests", "torch", "skimage"])
def test_what_the_installation_must_not_bring(name: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed / "python", "-c", f"import {name}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


@pytest.mark.slow
def test_missing_extras_are_named(installed: Path, tmp_path: Path) -> None:
    """Training needs torch; without it the error says what to install."""
    done = run(installed / "gransam", "train", tmp_path, "--base", "nano-voc20", "-o", "mine", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "gransam-sdk[train]" in done.stderr


def _version() -> str:
    from gransam_sdk.version import __version__

    return __version__

"""The pipeline of a diffusion model: a real one with tiny random weights; memory, devices, packages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_pipeline import CLASSES, FAKE, FakePipeline, load_instead, make, provenance_of
from PIL import Image
from tiny_diffusion import SIDE, write_tiny_pipeline

from gransam_sdk.errors import DeviceError, EnvironmentFault, InputError, MissingExtraError
from gransam_sdk.training.sources import painter as painter_module
from gransam_sdk.training.sources.diffusion import DiffusionConfig, DiffusionSource
from gransam_sdk.training.sources.painter import choose_device, load_painter
from gransam_sdk.training.sources.source import Source


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    return load_instead(monkeypatch)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", safety=2.0)


def pixels_of(folder: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.stack([np.asarray(Image.open(path), dtype=np.int64) for path in sorted(folder.glob("*.png"))])


def test_a_real_pipeline_from_folder_to_pictures(tiny: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    said: list[str] = []
    config = DiffusionConfig(model=str(tiny), steps=2, batch=2, device="cpu", seed=10)
    source: Source = DiffusionSource(config, log=said.append)
    report = source.collect(CLASSES, tmp_path, per_class=3, progress=lambda *step: told.append(step))
    assert report.lines() == [f"{name}: 3 of 3 pictures, 3 of them new" for name in CLASSES]
    assert told == [(name, n, 3) for name in CLASSES for n in (1, 2, 3)]
    assert "minutes" in said[0] and "for the 4 left" in said[1] and len(said) == 2
    assert sorted(path.name for path in (tmp_path / "badger").iterdir()) == [
        f"000{n}.{suffix}" for n in range(3) for suffix in ("json", "png")
    ]
    assert provenance_of(tmp_path / "badger")[1] == {
        "source": "diffusion",
        "model": "tiny",
        "revision": None,
        "commit": None,
        "pipeline": "StableDiffusionPipeline",
        "prompt": "a photo of a badger",
        "seed": 1011,
        "steps": 2,
        "guidance": 7.5,
        "size": [SIDE, SIDE],
        "dtype": "float32",
        "diffusers": sys.modules["diffusers"].__version__,
        "torch": torch.__version__,
    }
    pictures = np.concatenate([pixels_of(tmp_path / name) for name in CLASSES])
    assert pictures.shape == (6, SIDE, SIDE, 3)
    apart = np.abs(pictures[:, None] - pictures[None]).mean(axis=(2, 3, 4))
    assert (apart[~np.eye(6, dtype=bool)] > 5).all(), "each seed and prompt has a picture of its own"


def test_the_batch_does_not_change_a_picture(tiny: Path, tmp_path: Path) -> None:
    for batch in (1, 3):
        make(tmp_path / str(batch), DiffusionConfig(model=str(tiny), steps=2, batch=batch, device="cpu"), ("fox",))
    alone, together = (pixels_of(tmp_path / str(batch) / "fox") for batch in (1, 3))
    assert np.abs(alone - together).max() <= 1, "but for rounding"
    assert np.abs(alone - np.roll(together, 1, axis=0)).mean() > 5


def test_steps_guidance_and_template_reach_the_pipeline(tiny: Path, tmp_path: Path) -> None:
    plain = DiffusionConfig(model=str(tiny), steps=2, device="cpu")
    changed = {
        "plain": plain,
        "again": plain,
        "steps": replace(plain, steps=3),
        "guidance": replace(plain, guidance=1.5),
        "template": replace(plain, template="a drawing of {c} at sea"),
    }
    pictures = {}
    for name, config in changed.items():
        make(tmp_path / name, config, ("fox",), 1)
        pictures[name] = pixels_of(tmp_path / name / "fox")
    assert np.array_equal(pictures["plain"], pictures["again"])
    for name in ("steps", "guidance", "template"):
        assert not np.array_equal(pictures["plain"], pictures[name]), name


def test_the_safety_checker_is_believed(tmp_path: Path) -> None:
    model = write_tiny_pipeline(tmp_path / "strict", safety=-2.0)
    (report,) = make(tmp_path / "out", DiffusionConfig(model=str(model), steps=1, device="cpu"), ("fox",), 1)
    assert (report.made, report.missing, report.reasons) == (0, 1, {"blanked": 9})
    assert list((tmp_path / "out" / "fox").iterdir()) == []


def test_pickles_are_refused(tmp_path: Path) -> None:
    model = write_tiny_pipeline(tmp_path / "pickled", safetensors=False)
    assert [path.name for path in (model / "unet").iterdir() if path.suffix != ".json"] == [
        "diffusion_pytorch_model.bin"
    ]
    with pytest.raises(EnvironmentFault, match="safetensors"):
        make(tmp_path / "out", DiffusionConfig(model=str(model), steps=1, device="cpu"))


def test_a_damaged_or_half_model_is_an_environment_fault(tiny: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(tiny, tmp_path / "cut")
    weights = cut / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    half = shutil.copytree(tiny, tmp_path / "half")
    shutil.rmtree(half / "vae")
    (tmp_path / "empty").mkdir()
    for model in (cut, half, tmp_path / "empty"):
        with pytest.raises(EnvironmentFault, match=model.name):
            make(tmp_path / "out", DiffusionConfig(model=str(model), steps=1, device="cpu"))
    assert not (tmp_path / "out").exists(), "nothing is written before the model is there"


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers to huggingface_hub
def test_a_model_that_was_fetched_before(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(tiny, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="ascii")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    config = DiffusionConfig(model="somebody/tiny", steps=1, device="cpu")
    make(tmp_path / "out", config, ("fox",), 1)
    row = provenance_of(tmp_path / "out" / "fox")[0]
    assert (row["model"], row["revision"], row["commit"]) == ("somebody/tiny", None, commit)
    make(tmp_path / "out", replace(config, revision=commit), ("fox",), 2)
    assert provenance_of(tmp_path / "out" / "fox")[1]["commit"] == commit


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers to huggingface_hub
def test_a_model_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentFault) as caught:
        make(tmp_path / "out", DiffusionConfig(model="nobody/such-model", revision="v9", device="cpu"))
    for word in ("nobody/such-model", "v9", "HF_HUB_OFFLINE", "local folder"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes"),
        MemoryError(),
    ],
)
def test_the_batch_halves_until_it_fits(fake: FakePipeline, tmp_path: Path, fault: BaseException) -> None:
    fake.memory, fake.out_of_memory = 3, lambda: fault
    said: list[str] = []
    report = DiffusionSource(replace(FAKE, batch=8), log=said.append).collect(["fox"], tmp_path, per_class=9)
    assert report.classes[0].made == 9
    assert fake.seeds == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert [line for line in said if "memory" in line] == [
        "out of memory with 8 pictures at a time: going on with 4",
        "out of memory with 4 pictures at a time: going on with 2",
    ]


def test_no_memory_for_one_picture(fake: FakePipeline, tmp_path: Path) -> None:
    fake.memory = 0
    with pytest.raises(EnvironmentFault, match="memory for one picture"):
        make(tmp_path)


def test_another_fault_of_the_pipeline_is_not_hidden(fake: FakePipeline, tmp_path: Path) -> None:
    fake.memory, fake.out_of_memory = 0, lambda: RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="multiplied"):
        make(tmp_path)


@pytest.mark.parametrize(("free", "batch"), [(1.5, 1), (9.0, 4), (80.0, 16)])
def test_the_batch_goes_by_free_memory(monkeypatch: pytest.MonkeyPatch, tiny: Path, free: float, batch: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * 2**30), 0))
    pipeline = SimpleNamespace(set_progress_bar_config=lambda **how: None)
    loaded: list[object] = []
    monkeypatch.setattr(painter_module, "_load", lambda *how: loaded.append(how) or pipeline)
    painter = load_painter(str(tiny), None, device="auto", batch=None, log=lambda line: None)
    assert painter.batch == batch
    assert painter.made_with["dtype"] == "float16"
    assert loaded == [(str(tiny), None, "cuda", torch.float16)]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match="cuda:0"):
        choose_device("cuda:0")
    with pytest.raises(InputError, match="gpu"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(DeviceError, match="cuda:2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("package", ["torch", "diffusers", "transformers", "accelerate"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{package} not installed(.|\n)*\[train\]"):
            make(tmp_path)


def test_packages_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(f"Failed to import diffusers.{name} because of the following error:\nNo module named x")

    monkeypatch.setitem(sys.modules, "diffusers", Broken())  # type: ignore[arg-type]
    monkeypatch.setattr("gransam_sdk.training.sources.diffusion.require", lambda *names: None)
    with pytest.raises(EnvironmentFault, match="No module named x"):
        make(tmp_path, replace(FAKE, device="cpu"))

"""``--backend`` reaches the engine, and a run folder stays with the one that it was begun on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_photos import sample_path

import gransam_sdk as gs
from gransam_sdk.commands.annotate import annotate
from gransam_sdk.errors import DeviceError, InputError, OutputError


def run(out: Path, **options: object) -> None:
    with pytest.raises(BaseException) as done:  # typer.Exit, with the run's code
        annotate([str(sample_path("chelsea.png"))], str(out), report=False, quiet=True, **options)  # type: ignore[arg-type]
    if getattr(done.value, "exit_code", None) != 0:
        raise done.value


def test_a_run_on_openvino_says_so_and_is_not_continued_elsewhere(tmp_path: Path) -> None:
    run(tmp_path / "run", backend="openvino")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["environment"]["provider"] == told["fingerprint"]["provider"] == "OpenVINO CPU f32"
    assert told["status"] == "finished"
    with pytest.raises(OutputError, match=r"provider: .OpenVINO CPU f32. → .CPUExecutionProvider."):
        run(tmp_path / "run")
    with pytest.raises(OutputError, match="provider"):
        annotate([str(sample_path("chelsea.png"))], str(tmp_path / "run"), dry_run=True, quiet=True)


def test_what_cannot_be_had_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for backend, error in (("openvino-bf16", DeviceError), ("tensorrt9", InputError)):
        with pytest.raises(error):
            gs.load("nano-voc20", backend=backend)
        with pytest.raises(error):
            run(tmp_path / "run", backend=backend)
    with pytest.raises(DeviceError, match="--backend onnxruntime"):
        gs.load("nano-voc20", backend="openvino", device="cuda")

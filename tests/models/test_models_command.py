"""``gransam models`` as a user meets it: results on stdout, narration on stderr, exit codes, documentation."""

from __future__ import annotations

import hashlib
import json
import math
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from weights_server import WeightsServer, breaking, dripping, status

from gransam_sdk.cli import app, main
from gransam_sdk.commands import step_progress, weights_fetch
from gransam_sdk.commands.step_progress import StepProgress
from gransam_sdk.models import catalogue
from gransam_sdk.models.catalogue import Weights
from gransam_sdk.training.sources.download import Manners

BODY = random.Random(8).randbytes(50_000)
TOY, LOST = (
    Weights(
        name=name,
        about="Toy",
        file=f"{name}.pth",
        base="https://weights.example/",
        bytes=len(BODY),
        sha256=hashlib.sha256(BODY).hexdigest(),
        licence="Apache-2.0",
        project="https://weights.example/toy",
    )
    for name in ("toy", "lost")
)
ROOT = Path(__file__).parents[2]
GROUP: Any = typer.main.get_command(app).commands["models"]  # type: ignore[attr-defined]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WeightsServer]:
    """Weights on this machine, as a mirror that the environment names."""
    server = WeightsServer(BODY)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    monkeypatch.setenv("GRANSAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GRANSAM_MIRROR", server.root)
    monkeypatch.delenv("GRANSAM_OFFLINE", raising=False)
    monkeypatch.setattr(catalogue, "CATALOGUE", (TOY, LOST))
    monkeypatch.setattr(weights_fetch, "patience", lambda: Manners(deadline=math.inf, attempts=2, backoff=0.001))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # the server's broken pipes are no end of us
    yield server
    server.close()


@pytest.fixture
def models(server: WeightsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``gransam models``; returns the exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gransam", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, printed.out, printed.err

    return call


def test_a_life_of_weights(models: Any, server: WeightsServer, tmp_path: Path) -> None:
    path = tmp_path / "home" / "models" / "toy" / "toy.pth"
    assert [line.split()[-1] for line in models("list")[1].splitlines()] == ["absent", "absent"]
    code, out, err = models("pull", "toy")
    assert (code, out, path.read_bytes()) == (0, f"{path}\n", BODY)
    assert f"{server.root}/toy.pth" in err and "pulled and verified" in err and "Apache-2.0" in err
    assert models("list")[1].splitlines()[0].split() == ["toy", "0.1", "MB", "Apache-2.0", "here"]
    assert models("verify") == (0, f"toy: verified, sha256 {TOY.sha256}, compared with {known()}\n", "")
    code, out, err = models("pull", "toy")
    assert (code, len(server.asked)) == (0, 1) and "pulled" not in err
    code, out, err = models("info", "toy")
    assert (code, err) == (0, "") and all(str(fact) in out for fact in (path, TOY.sha256, TOY.licence, TOY.address()))
    assert models("rm", "toy")[0] == 0 and not path.parent.exists()
    assert models("rm", "toy")[2] == "toy: nothing was here\n"


def known() -> str:
    return "the sha256 that is known of it"


def test_what_was_damaged_is_refused_and_listed(models: Any, tmp_path: Path) -> None:
    path = Path(models("pull", "toy")[1].strip())
    path.write_bytes(bytes(len(BODY)))
    code, out, err = models("verify")
    assert (code, out) == (5, "toy: refused\n") and TOY.sha256 in err and "gransam models rm toy" in err
    path.write_bytes(BODY[:9])
    assert models("list")[1].splitlines()[0].endswith("damaged, 9 bytes")
    path.rename(path.with_name("toy.pth.part"))
    assert models("list")[1].splitlines()[0].endswith("unfinished, 0.0 MB here")


def test_a_file_placed_by_hand_is_not_called_verified(models: Any, tmp_path: Path) -> None:
    path = tmp_path / "home" / "models" / "toy" / "toy.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert models("list")[1].splitlines()[0].endswith("here, not verified")
    assert models("verify", "toy")[0] == 0
    assert models("list")[1].splitlines()[0].endswith("  here")


def test_json(models: Any) -> None:
    listed = json.loads(models("list", "--json")[1])["models"]
    assert [(each["name"], each["state"], each["bytes"]) for each in listed] == [
        ("toy", "absent", 50_000),
        ("lost", "absent", 50_000),
    ]
    assert json.loads(models("info", "lost", "--json")[1]) == listed[1]


def test_a_failed_pull_says_what_is_kept(models: Any, server: WeightsServer) -> None:
    server.replies = [breaking(20_000), breaking(0), breaking(0), breaking(0), breaking(0)]
    code, out, err = models("pull", "toy", "lost")
    assert (code, out) == (5, "") and "20,000 of 50,000 bytes are kept" in err
    assert models("pull", "toy", "lost")[0] == 0 and server.asked[-2].range == "bytes=20000-"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pull", "toi"], 2, "such as toy"),
        (["pull", "toy", "--mirror", "ftp://x"], 2, "--mirror"),
        (["pull"], 2, "NAME"),
        (["verify", "toy"], 5, "gransam models pull toy"),
        (["info", "zzz"], 2, "one of toy, lost"),
        (["rm", "zzz"], 2, "one of toy, lost"),
        (["pull", "toy", "--offline"], 5, "toy.pth there by hand"),
        (["pull", "toy", "--cache", f"{__file__}/x"], 6, "with --cache"),
        (["verify"], 0, "no weights are here"),
    ],
)
def test_exit_codes(models: Any, server: WeightsServer, arguments: list[str], code: int, words: str) -> None:
    found = models(*arguments)
    assert found[0] == code and words in found[2] and server.asked == []


def test_offline_in_the_environment(models: Any, server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANSAM_OFFLINE", "1")
    code, _, err = models("pull", "toy")
    assert (code, server.asked) == (5, []) and "GRANSAM_OFFLINE" in err and f"{server.root}/toy.pth" in err
    monkeypatch.setenv("GRANSAM_OFFLINE", "0")
    assert models("pull", "toy")[0] == 0


def test_a_named_mirror_goes_before_the_environment(
    models: Any, server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRANSAM_MIRROR", "http://127.0.0.1:9/")
    assert models("pull", "toy", "--mirror", f"{server.root}/inside")[0] == 0
    assert server.asked[0].path == "/inside/toy.pth"


def test_the_makers_are_asked_when_there_is_no_mirror(
    models: Any, server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRANSAM_MIRROR")
    monkeypatch.setattr(catalogue, "CATALOGUE", (Weights(**facts(TOY) | {"base": f"{server.root}/"}),))
    code, _, err = models("pull", "toy")
    assert code == 5 and "address: 127.0.0.1 is not on the public internet" in err and server.asked == []


def facts(weights: Weights) -> dict[str, Any]:
    return {name: getattr(weights, name) for name in weights.__slots__}


def test_ctrl_c_says_what_is_kept(models: Any, server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.replies = [dripping(5000, 0.01)]
    seen = StepProgress.advance

    def press(self: Any, done: int, total: int) -> None:
        seen(self, done, total)
        if done > 20_000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StepProgress, "advance", press)
        code, _, err = models("pull", "toy")
    assert code == 130 and "what was downloaded is kept" in err
    assert models("pull", "toy")[0] == 0 and server.asked[-1].range is not None


def test_progress_without_a_terminal_is_a_line_now_and_then(
    models: Any, server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [dripping(5000, 0.0)]
    _, _, err = models("pull", "toy")
    assert err.count(" of 0.1 MB") == 1, "the last"
    models("rm", "toy")
    monkeypatch.setattr(step_progress, "HEARTBEAT_SECONDS", 0.0)
    server.replies = [dripping(5000, 0.01)]
    _, _, err = models("pull", "toy")
    assert err.count(" of 0.1 MB") > 3


def test_on_a_terminal_there_is_a_bar(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with weights_fetch.download_progress("toy") as shown:
        assert not shown._shown
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with weights_fetch.download_progress("toy") as shown:
        shown.advance(10, 20)
        assert (shown._bar.tasks[0].completed, shown._bar.tasks[0].total) == (10, 20)


def test_a_refused_status_is_not_tried_again(models: Any, server: WeightsServer) -> None:
    server.always(status(403))
    code, _, err = models("pull", "toy")
    assert code == 5 and "HTTP status 403" in err and len(server.asked) == 1


@pytest.mark.parametrize("name", GROUP.commands)
def test_every_command_has_help_and_a_table(name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert GROUP.commands[name].help and f"### gransam models {name}\n" in page
    block = page.partition(f"<!-- options: models {name} -->")[2].partition("<!-- end -->")[0]
    for parameter in GROUP.commands[name].params:
        assert parameter.help and parameter.help in block


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for weights in catalogue.CATALOGUE:
        assert weights.name in page or f"`-{weights.name.removeprefix('sam2.1-hiera-')}`" in page, weights.name
        assert weights.project in page


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from gransam_sdk.cli import main
sys.argv[1:] = ["models", "--help"]
try:
    main()
except SystemExit:
    print(sorted({"numpy", "rich", "http.client", "gransam_sdk.models.store"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "[]\n"

"""The web source against a catalogue on this machine: what it leaves, how it goes on, what the command says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openverse_server import OpenverseServer, only, picture, send, tree

from gransam_sdk.cli import main
from gransam_sdk.errors import OutputError
from gransam_sdk.training.sources import download, web
from gransam_sdk.training.sources.attribution import ATTRIBUTION_NAME
from gransam_sdk.training.sources.source import put_picture
from gransam_sdk.training.sources.web import WebSource

ROOT = Path(__file__).parent.parent.parent


def test_pictures_come_with_provenance_and_attribution(
    server: OpenverseServer, source: WebSource, tmp_path: Path
) -> None:
    server.fill("red fox", 3)
    server.offer("badger 🦡", "7", send(picture(7, format="PNG"), "image/png"), creator="Zoë\n\x1b[31m Ł\u202e")
    seen: list[tuple[str, int, int]] = []
    report = source.collect(
        ["red fox", "badger 🦡"], tmp_path / "out", per_class=2, progress=lambda *step: seen.append(step)
    )
    out = tmp_path / "out"
    assert [(found.name, found.made, found.kept, found.missing) for found in report.classes] == [
        ("red fox", 2, 0, 0),
        ("badger 🦡", 1, 0, 1),
    ]
    assert sorted(tree(out)) == sorted(
        [
            ATTRIBUTION_NAME,
            "badger 🦡/0000.json",
            "badger 🦡/0000.png",
            *(f"red fox/{name}" for name in ("0000.jpg", "0000.json", "0001.jpg", "0001.json")),
        ]
    )
    assert (out / "red fox" / "0001.jpg").read_bytes() == picture(1)
    provenance = json.loads((out / "red fox" / "0001.json").read_text(encoding="utf-8"))
    assert (provenance["source"], provenance["query"], provenance["width"]) == ("web", "red fox", 240)
    rows = [json.loads(line) for line in (out / ATTRIBUTION_NAME).read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == ["badger 🦡/0000.png", "red fox/0000.jpg", "red fox/0001.jpg"]
    assert rows[1] == {
        "file": "red fox/0000.jpg",
        "title": "Title of 0",
        "creator": "A. Person",
        "licence": "by-sa",
        "licence_version": "4.0",
        "licence_url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "landing_page": "https://photos.example/0",
        "provider": "flickr",
        "attribution": '"Title of 0" by A. Person is licensed under CC BY-SA 4.0.',
    }
    assert rows[0]["creator"] == "Zoë [31m Ł", "what cannot be seen is gone"
    assert seen[0] == ("red fox", 0, 2) and ("red fox", 2, 2) in seen and seen[-1] == ("badger 🦡", 1, 2)
    assert report.lines()[0] == "red fox: 2 of 2 pictures, 2 of them new"
    assert server.agents == {download.USER_AGENT} and "gransam-sdk/" in download.USER_AGENT


def test_the_search_says_what_is_wanted(server: OpenverseServer, tmp_path: Path) -> None:
    server.fill("red fox", 1)
    server.source(page_size=5).collect(["red fox"], tmp_path, per_class=1)
    path, words = server.asked[0]
    assert path == "/v1/images/"
    assert words == {
        "q": "red fox",
        "license": "cc0,pdm,by,by-sa",
        "size": "medium,large",
        "page_size": "5",
        "page": "1",
    }


def test_pages_are_turned_until_there_is_enough(server: OpenverseServer, tmp_path: Path) -> None:
    server.fill("fox", 9)
    server.source(page_size=2).collect(["fox"], tmp_path, per_class=5)
    assert [words["page"] for path, words in server.asked if path == "/v1/images/"] == ["1", "2", "3"]
    assert server.times_asked()["4"] == 1 and server.times_asked()["5"] == 0


@pytest.mark.parametrize("deepest", [12, 2])
def test_results_that_run_out_are_reported(server: OpenverseServer, tmp_path: Path, deepest: int) -> None:
    server.fill("fox", 6)
    server.deepest = deepest  # a page beyond it is refused, whatever page_count said
    found = only(server.source(page_size=2).collect(["fox"], tmp_path, per_class=10))
    assert (found.made, found.missing) == ((6, 4) if deepest == 12 else (4, 6))


def test_nothing_is_asked_for_when_all_is_there(server: OpenverseServer, source: WebSource, tmp_path: Path) -> None:
    server.fill("fox", 3)
    source.collect(["fox"], tmp_path, per_class=2)
    before, count = tree(tmp_path), len(server.asked)
    found = only(source.collect(["fox"], tmp_path, per_class=2))
    assert (found.made, found.kept) == (0, 2)
    assert len(server.asked) == count and tree(tmp_path) == before
    assert only(source.collect(["fox"], tmp_path, per_class=3)).kept == 2
    assert server.times_asked()["0"] == 1, "what is there is not fetched again"


def test_a_cut_run_goes_on_to_the_same_bytes(
    server: OpenverseServer, source: WebSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fill("fox", 4)
    server.offer("fox", "4", send(b"<html>", "text/html"))
    server.fill("badger", 3, first=10)
    source.collect(["fox", "badger"], tmp_path / "whole", per_class=3)
    real = put_picture
    for cut in range(6):
        out = tmp_path / f"cut{cut}"
        left = [None] * cut

        def put(*arguments: Any, left: list[None] = left) -> Path:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(web, "put_picture", put)
            with pytest.raises(KeyboardInterrupt):
                source.collect(["fox", "badger"], out, per_class=3)
        lines = (out / ATTRIBUTION_NAME).read_bytes().splitlines() if cut else []
        assert len(lines) == cut == len(list(out.glob("*/*.jpg")))
        source.collect(["fox", "badger"], out, per_class=3)
        assert tree(out) == tree(tmp_path / "whole")


def test_a_killed_run_leaves_no_picture_without_its_origin(server: OpenverseServer, tmp_path: Path) -> None:
    server.fill("fox", 30)
    script = f"""
from gransam_sdk.training.sources.openverse import Openverse
from gransam_sdk.training.sources.web import WebConfig, WebSource
catalogue = Openverse(base={f"{server.root}/v1/"!r}, interval=0.0)
from pathlib import Path
source = WebSource(WebConfig(catalogue=catalogue, interval=0.0, allow_private=True))
source.collect(["fox"], Path({str(tmp_path)!r}), per_class=30)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "NO_PROXY": "*"})
    until = time.monotonic() + 20
    while len(list(tmp_path.glob("fox/*.jpg"))) < 3 and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = sorted(path.stem for path in tmp_path.glob("fox/*.jpg"))
    assert 3 <= len(there) < 30
    assert set(there) <= {path.stem for path in tmp_path.glob("fox/*.json")}
    (tmp_path / "fox" / ".gransam-0123456789abcdef.tmp").write_bytes(b"unfinished")
    server.source().collect(["fox"], tmp_path, per_class=30)
    names = {"fox/0000.jpg", ATTRIBUTION_NAME}
    assert names <= tree(tmp_path).keys() and len(tree(tmp_path)) == 61
    assert [(tmp_path / "fox" / f"{n:04d}.jpg").read_bytes() for n in range(30)] == [picture(n) for n in range(30)]


def test_a_full_disk_is_said_and_loses_nothing(
    server: OpenverseServer, source: WebSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fill("fox", 3)
    source.collect(["fox"], tmp_path, per_class=1)
    before = tree(tmp_path)

    def refuse(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if function is os.write:
            raise OSError(28, "No space left on device")
        return function(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr("gransam_sdk.annotate.disk._call", refuse)
        with pytest.raises(OutputError, match="ENOSPC"):
            source.collect(["fox"], tmp_path, per_class=3)
    assert tree(tmp_path) == before
    assert only(source.collect(["fox"], tmp_path, per_class=3)).made == 2


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gransam", "crawl", *map(str, arguments)])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGPIPE)}
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_command(
    server: OpenverseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "wait", lambda seconds: None)
    monkeypatch.setattr(web, "WebConfig", partial(web.WebConfig, allow_private=True))
    server.fill("red fox", 3)
    server.offer("badger", "9", send(picture(9)), license="by")
    base = ["-o", tmp_path, "--api", f"{server.root}/v1", "-c", "red fox"]
    assert run_command(monkeypatch, *base, "--per-class", 2) == 0
    capsys.readouterr()
    assert run_command(monkeypatch, *base, "-c", "badger", "--per-class", 2, "--json") == 3, "one is missing"
    printed = capsys.readouterr()
    assert [found["made"] for found in json.loads(printed.out)["classes"]] == [0, 1]
    assert "badger: 1 of 2 pictures" in printed.err and "the results have run out" in printed.err
    assert run_command(monkeypatch, *base, "-c", "unicorn", "--per-class", 2, "--licence", "BY, cc0") == 3
    assert server.asked[-1][1]["license"] == "by,cc0"
    assert "unicorn: 0 of 2 pictures" in capsys.readouterr().err
    assert run_command(monkeypatch, *base, "-c", "a/b") == 2
    assert run_command(monkeypatch, *base, "--licence", "all") == 2
    server.replies["/v1/images/"] = send(b"", status=403)
    assert run_command(monkeypatch, *base, "-c", "owl") == 5
    assert "Traceback" not in capsys.readouterr().err

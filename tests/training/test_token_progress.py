"""What the command says while tokens are cached."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gransam_sdk.commands.token_progress import TokenProgress
from gransam_sdk.training.token_cache import CachePlan

PLAN = CachePlan(what="pictures", folder=Path("cache"), pictures=250, cached=50, bytes=108_000_000, free=7_000_000_000)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_size_first_and_the_last_count_at_the_end(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := kind())
    with TokenProgress() as shown:
        shown.announce(PLAN)
        for done in range(50, 251):
            shown.advance(done, 250)
    said = stream.getvalue()
    assert "tokens of 200 of 250 pictures: 108.0 MB into cache (7.0 GB free)" in said
    assert ("250/250" if kind is Terminal else "tokens of 250 of 250") in said
    if kind is io.StringIO:
        assert len(said.splitlines()) == 2, "a quick pass is not told picture by picture"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_that_all_are_there_is_said_once(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := kind())
    whole = replace(PLAN, cached=250, bytes=0)
    with TokenProgress() as shown:
        shown.announce(whole)
        shown.advance(250, 250)
        if kind is io.StringIO:
            assert stream.getvalue().splitlines() == ["tokens of all 250 pictures are in cache"]
        shown.announce(replace(PLAN, what="scenes", pictures=9, cached=7))
        for done in (7, 8, 9):
            shown.advance(done, 9)
    said = stream.getvalue()
    assert said.count("tokens of all 250 pictures are in cache") == 1
    assert "tokens of 2 of 9 scenes" in said
    assert ("9/9" if kind is Terminal else "tokens of 9 of 9\n") in said, "what is new is told to the end"


def test_what_was_deleted_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TokenProgress() as shown:
        shown.announce(replace(PLAN, folder=Path("cache/tokens/ab"), freed=4_200_000_000))
        shown.announce(PLAN)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "deleted 4,200.0 MB of tokens in cache/tokens that were not used for 30 days"
    assert len(said) == 3


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, True), (SystemExit, True), (OSError, False)])
def test_a_stopped_pass_says_what_is_kept(
    error: type[BaseException], kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error), TokenProgress():
        raise error
    assert ("tokens" in capsys.readouterr().err) is kept

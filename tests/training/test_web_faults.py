"""The web's bad habits: whatever a server does, a picture is skipped with its reason or the run says what to do."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from openverse_server import (
    HASTY,
    Handler,
    OpenverseServer,
    Reply,
    dripping,
    endless,
    in_turn,
    only,
    picture,
    send,
    tree,
)
from photo_bytes import png

from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.training.sources import download
from gransam_sdk.training.sources.attribution import ATTRIBUTION_NAME
from gransam_sdk.training.sources.download import Fetcher, Manners
from gransam_sdk.training.sources.fetch_fault import FetchFault
from gransam_sdk.training.sources.openverse import Openverse
from gransam_sdk.training.sources.web import WebConfig, WebSource

BOMB = png(30_000, 30_000, 8, 2)
CASES: dict[str, tuple[Reply, str]] = {
    "html": (send(b"<html>not found</html>", "text/html; charset=utf-8"), "content-type"),
    "html called jpeg": (send(b"<html>please log in</html>" * 9, "image/jpeg"), "format"),
    "gif called jpeg": (send(b"GIF89a" + bytes(50)), "format"),
    "half a picture": (send(picture(1)[:2000]), "truncated"),
    "nothing": (send(b""), "empty"),
    "claims more than comes": (send(picture(1), length=100_000), "cut"),
    "claims less than comes": (send(picture(1), length=2000), "truncated"),
    "claims too much": (send(b"x", length=10**12), "too-large"),
    "too much, unsaid": (send(bytes(300_000), length=None), "too-large"),
    "bomb": (send(BOMB, "image/png"), "pixels"),
    "small": (send(picture(1, 300, 90)), "small"),
    "missing": (send(b"", status=404), "status"),
    "always broken": (send(b"", status=503), "status"),
    "always busy": (send(b"", status=429), "rate-limit"),
    "silent": (dripping(b"x" * 100, 0.6), "timeout"),
    "dripping": (dripping(bytes(100), 0.2, pieces=20), "timeout"),
    "a header that drips": (endless(b"HTTP/1.0 200 OK\r\nX-Endless: ", b"x", 0.1), "timeout"),
    "headers that drip": (endless(b"HTTP/1.0 200 OK\r\n", b"X-More: x\r\n", 0.1), "timeout"),
    "a preamble that drips": (
        endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
        "timeout",
    ),
    "a chunk's size that drips": (
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", 0.1),
        "timeout",
    ),
    "to a file": (send(b"", status=302, Location="file:///etc/hostname"), "redirect"),
    "to ftp": (send(b"", status=302, Location="ftp://127.0.0.1/x.jpg"), "url"),
    "to a broken address": (send(b"", status=302, Location="http://[broken/"), "url"),
    "in circles": (send(b"", status=302, Location="/files/1"), "redirect"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_picture_is_skipped_with_its_reason(server: OpenverseServer, tmp_path: Path, case: str) -> None:
    reply, reason = CASES[case]
    server.offer("fox", "1", reply)
    server.offer("fox", "2", send(picture(2)))
    found = only(server.source(max_bytes=200_000).collect(["fox"], tmp_path, per_class=1))
    assert found.skipped == ((f"{server.root}/files/1", reason),)
    assert (found.made, found.reasons) == (1, {reason: 1})
    assert (tmp_path / "fox" / "0000.jpg").read_bytes() == picture(2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"url": "file:///etc/hostname"}, "url"),
        ({"url": "https://[broken/"}, "url"),
        ({"url": None}, "url"),
        ({"url": "http://127.0.0.1/\ud800"}, "url"),
        ({"filetype": "svg"}, "format"),
        ({"id": "../../etc"}, "unusable"),
        ({"id": None}, "unusable"),
    ],
)
def test_a_result_that_makes_no_sense_is_skipped(
    server: OpenverseServer, source: WebSource, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    server.offer("fox", "1", send(picture(1)), **changes)
    server.results["fox"].append("no object at all")
    server.offer("fox", "2", send(picture(2)))
    found = only(source.collect(["fox"], tmp_path, per_class=1))
    assert [why for _, why in found.skipped] == [reason, "unusable"]
    assert server.times_asked()["1"] == 0 and found.made == 1


def test_a_licence_nobody_asked_for_is_not_believed(
    server: OpenverseServer, source: WebSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer("fox", "1", send(picture(1)), license="by-nc-nd")
    monkeypatch.setattr(server, "_matches", lambda item, words: True)
    found = only(source.collect(["fox"], tmp_path, per_class=1))
    assert (found.made, found.reasons) == (0, {"unusable": 1}) and not list(tmp_path.glob("fox/*"))


def test_links_that_are_no_web_addresses_are_not_passed_on(
    server: OpenverseServer, source: WebSource, tmp_path: Path
) -> None:
    server.offer("fox", "1", send(picture(1)), foreign_landing_url="javascript:alert(1)", title=7)
    source.collect(["fox"], tmp_path, per_class=1)
    row = json.loads((tmp_path / ATTRIBUTION_NAME).read_text(encoding="utf-8"))
    assert (row["landing_page"], row["title"]) == ("", "")


def test_errors_that_pass_are_waited_out(
    server: OpenverseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download, "wait", pauses.append)
    oops = send(b"", status=500)
    server.replies["/v1/images/"] = in_turn(oops, send(b"", status=429, Retry_After="2"), server.search)
    server.offer("fox", "1", in_turn(oops, oops, send(picture(1))))
    server.offer("fox", "2", in_turn(send(picture(2), length=10**6), send(picture(2))))
    server.offer("fox", "3", in_turn(send(b"", status=503, Retry_After=formatdate(time.time() + 60)), send(picture(3))))
    found = only(server.source(manners=replace(HASTY, attempts=3)).collect(["fox"], tmp_path, per_class=3))
    assert (found.made, found.skipped) == (3, ())
    assert server.times_asked() == {"search": 3, "1": 3, "2": 2, "3": 2}
    assert pauses[1] == 2 and 50 < pauses[-1] <= 60
    doubled = [pauses[2], pauses[3]]
    assert 0.001 <= doubled[0] <= 0.0015 and 0.002 <= doubled[1] <= 0.003


def test_pauses_are_the_same_for_a_seed(server: OpenverseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def pauses(seed: int) -> list[float]:
        waited: list[float] = []
        monkeypatch.setattr(download, "wait", waited.append)
        with pytest.raises(FetchFault):
            Fetcher(Manners(attempts=5, seed=seed), allow_private=True).get(
                f"{server.root}/broken", max_bytes=9, interval=0.0
            )
        return waited

    server.replies["/broken"] = send(b"", status=500)
    assert len(pauses(1)) == 4 and pauses(1) == pauses(1) != pauses(2)


def test_a_host_is_not_asked_sooner_than_agreed(server: OpenverseServer, tmp_path: Path) -> None:
    server.replies["/a"] = server.replies["/b"] = send(b"x")
    fetcher = Fetcher(HASTY, allow_private=True)
    begun = time.monotonic()
    for path in ("/a", "/b", "/a"):
        fetcher.get(server.root + path, max_bytes=9, interval=0.1)
    assert 0.2 <= time.monotonic() - begun < 2


def test_redirects_within_the_web_are_followed(server: OpenverseServer, source: WebSource, tmp_path: Path) -> None:
    server.replies["/moved"] = send(picture(5))
    server.offer("fox", "1", send(b"", status=301, Location=f"{server.root}/moved"))
    assert only(source.collect(["fox"], tmp_path, per_class=1)).made == 1


def test_the_body_of_a_redirect_is_not_read(server: OpenverseServer, source: WebSource, tmp_path: Path) -> None:
    sent = []

    def long_winded(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/moved")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(bytes(1 << 20))
            sent.append(1 << 20)

    server.replies["/moved"] = send(picture(5))
    server.offer("fox", "1", long_winded)
    assert only(source.collect(["fox"], tmp_path, per_class=1)).made == 1
    assert sum(sent) < 50 << 20  # what the sockets' buffers take


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/"
        config = WebConfig(catalogue=Openverse(base=nobody, interval=0.0), manners=HASTY)
        with pytest.raises(EnvironmentFault, match="check the network") as caught:
            WebSource(config).collect(["fox"], tmp_path, per_class=1)
    assert "unreachable" in caught.value.found and not (tmp_path / ATTRIBUTION_NAME).exists()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (send(b"<html>hotel network: log in</html>", "text/html"), "Openverse's search results"),
        (send(b'{"results": 7, "page_count": 1}', "application/json"), "Openverse's search results"),
        (send(b'{"results": []}', "application/json"), "Openverse's search results"),
        (send(b"[" * 100_000, "application/json"), "Openverse's search results"),
        (send(b"", status=429, Retry_After="86400"), "in 1440 minutes"),
        (send(b"", status=403), "check --api"),
        (send(b"", status=500), "check the network"),
        (dripping(b"x" * 10, 0.6), "timeout"),
    ],
)
def test_a_search_that_fails_ends_the_run_and_keeps_what_is_there(
    server: OpenverseServer, source: WebSource, tmp_path: Path, reply: Reply, words: str
) -> None:
    server.fill("fox", 2)
    source.collect(["fox"], tmp_path, per_class=1)
    before = tree(tmp_path)
    server.replies["/v1/images/"] = reply
    with pytest.raises(EnvironmentFault, match=words):
        source.collect(["fox"], tmp_path, per_class=2)
    assert tree(tmp_path) == before
    assert len([path for path, _ in server.asked if path == "/v1/images/"]) <= 1 + HASTY.attempts

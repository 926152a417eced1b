"""Fetching weights from a server that breaks, stalls and lies: the right bytes get the name, or an error says why."""

from __future__ import annotations

import hashlib
import http.client
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from toy_weights import BODY, HASTY, SHA256, WEIGHTS, left, names, pull, ranges, refusal
from weights_server import Reply, WeightsServer, breaking, claiming, deaf, dripping, part, stalling, status, whole

from gransam_sdk.commands.weights_fetch import complete
from gransam_sdk.errors import EnvironmentFault, GranSAMError
from gransam_sdk.models.store import Store


def test_a_broken_download_goes_on_where_it_was(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(1), breaking(70_000), breaking(100_000)]
    assert pull(store, server).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=1-", "bytes=70001-", "bytes=170001-"]
    assert [asked.if_range for asked in server.asked] == [None, *['"first"'] * 3]
    assert server.sent == len(BODY), "nothing came twice"


def test_more_breaks_than_attempts_do_not_matter_while_bytes_come(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(20_000)] * 14
    assert pull(store, server).path.read_bytes() == BODY
    assert len(server.asked) == 15 > HASTY.attempts and server.sent == len(BODY)


def test_a_server_that_breaks_at_once_is_given_up(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(1000)] + [breaking(0)] * 50
    fault = refusal(store, server)
    assert "cut" in fault.found and f"1,000 of {len(BODY):,} bytes are kept" in fault.do
    assert left(store) == BODY[:1000] and len(server.asked) == 2 * HASTY.attempts
    assert store.look(WEIGHTS).state == "unfinished" and store.look(WEIGHTS).bytes == 1000
    server.replies = []
    assert pull(Store(store.path(WEIGHTS).parents[2]), server).fetched
    assert ranges(server)[-1] == "bytes=1000-"


def test_a_stall_ends_and_is_gone_on_from(store: Store, server: WeightsServer) -> None:
    server.replies = [stalling(50_000, 0.6)]
    assert pull(store, server).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=50000-"]


def test_a_server_that_only_stalls_is_given_up(store: Store, server: WeightsServer) -> None:
    server.always(stalling(0, 0.5))
    fault = refusal(store, server)
    assert "timeout: no byte for 0.3 s" in fault.found and "nothing of it is here" in fault.do


def test_a_file_that_has_changed_is_fetched_from_its_start(store: Store, server: WeightsServer) -> None:
    server.body, server.etag = bytes(len(BODY)), '"old"'
    server.replies = [breaking(90_000)] + [breaking(0)] * 50
    refusal(store, server)
    assert left(store) == bytes(90_000)
    server.body, server.etag, server.replies = BODY, '"new"', []
    asked = len(server.asked)
    assert pull(store, server).path.read_bytes() == BODY
    assert [(each.range, each.if_range) for each in server.asked[asked:]] == [("bytes=90000-", '"old"')]


def test_a_server_that_knows_no_ranges_starts_over(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(90_000), deaf]
    assert pull(store, server).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=90000-"]


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "unquoted"])
def test_without_a_strong_etag_nothing_is_gone_on_with(store: Store, server: WeightsServer, etag: str) -> None:
    server.etag = etag
    server.replies = [breaking(90_000), breaking(10_000)]
    assert pull(store, server).path.read_bytes() == BODY
    assert ranges(server) == [None, None, None]


def test_bytes_from_another_address_are_not_gone_on_with(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(90_000)] + [breaking(0)] * 50
    refusal(store, server)
    server.replies, server.asked = [], []
    fetch = partial(complete, named_by_user=True)
    assert store.pull(WEIGHTS, fetch, url=f"{server.root}/mirror/toy.pth").fetched
    assert ranges(server) == [None]


@pytest.mark.parametrize(
    "lie",
    [
        part(f"bytes 0-{len(BODY) - 1}/{len(BODY)}", 0),
        part(f"bytes 90000-{len(BODY) - 2}/{len(BODY) - 1}", 90_000),
        part(f"bytes 90000-{len(BODY) - 1}/{len(BODY)}", 90_000, etag='"other"'),
        part("bytes", 90_000),
        part("", 90_000),
    ],
    ids=["another start", "another length", "another version", "no range", "nothing"],
)
def test_a_rest_that_is_not_the_rest_is_not_taken(store: Store, server: WeightsServer, lie: Reply) -> None:
    server.replies = [breaking(90_000), lie]
    assert pull(store, server).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=90000-", None], "it starts over"


def test_a_server_that_always_answers_another_rest_is_given_up(store: Store, server: WeightsServer) -> None:
    server.always(part(f"bytes 5-{len(BODY) - 1}/{len(BODY)}", 5))
    assert "cut" in refusal(store, server).found and left(store) == b""


LIES: dict[str, tuple[Reply, str, int]] = {
    "claims more than the weights have": (claiming(len(BODY) + 1), "300,001 bytes", 0),
    "claims less": (claiming(1000), "1,000 bytes", 0),
    "sends less than it claims": (claiming(len(BODY), BODY[:-1]), "cut", len(BODY) - 1),
    "sends less without a claim": (claiming(None, BODY[:-1]), "cut", len(BODY) - 1),
    "sends more without a claim": (claiming(None, BODY + b"x"), "more than 300,000 bytes", -1),
    "a login page": (claiming(-1, b"<html>log in</html>", kind="text/html; charset=utf-8"), "web page", 0),
    "a page of the right length": (claiming(-1, b" " * len(BODY), kind="text/html"), "web page", 0),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_the_length_or_the_kind(store: Store, server: WeightsServer, name: str) -> None:
    reply, words, kept = LIES[name]
    server.always(reply)
    fault = refusal(store, server)
    assert words in fault.found and f"{server.root}/toy.pth" in fault.what and fault.do
    assert kept < 0 or left(store) == BODY[:kept]
    server.replies = []
    assert pull(store, server).path.read_bytes() == BODY


def test_a_page_in_the_middle_takes_nothing_away(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(90_000), LIES["a login page"][0]]
    refusal(store, server)
    assert left(store) == BODY[:90_000]
    assert pull(store, server).fetched and ranges(server)[-1] == "bytes=90000-"


@pytest.mark.parametrize("place", [0, 150_000, len(BODY) - 1])
def test_one_wrong_bit_is_refused_and_deleted(store: Store, server: WeightsServer, place: int) -> None:
    wrong = bytearray(BODY)
    wrong[place] ^= 1
    server.body = bytes(wrong)
    fault = refusal(store, server)
    assert SHA256 in fault.expected and hashlib.sha256(wrong).hexdigest() in fault.found and "deleted" in fault.found
    assert names(store) == {".lock"}
    server.body = BODY
    assert pull(store, server).fetched


def test_wrong_bytes_at_the_start_of_a_resumed_download_are_found(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(90_000)] + [breaking(0)] * 50
    refusal(store, server)
    path = store.path(WEIGHTS).with_name("toy.pth.part")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    server.replies = []
    assert "deleted" in refusal(store, server).found


def test_statuses(store: Store, server: WeightsServer) -> None:
    server.replies = [status(503), status(429, Retry_After="0")]
    assert pull(store, server).fetched and len(server.asked) == 3
    store.remove(WEIGHTS)
    server.asked = []
    server.always(status(404))
    fault = refusal(store, server)
    assert "HTTP status 404" in fault.found and "--mirror" in fault.do and len(server.asked) == 1


def test_a_server_whose_file_ends_before_ours(store: Store, server: WeightsServer) -> None:
    server.replies = [breaking(90_000), status(416)]
    assert pull(store, server).path.read_bytes() == BODY and ranges(server)[-1] is None
    store.remove(WEIGHTS)
    server.asked = []
    server.replies = [breaking(90_000), status(416)] * 9
    assert "416" in refusal(store, server).found, "it is begun anew once"
    assert len(server.asked) == 4


def test_redirects_keep_the_range_and_lead_to_no_private_place(
    store: Store, server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = status(302, Location="/moved/toy.pth")
    server.replies = [moved, breaking(90_000), moved]
    assert pull(store, server).path.read_bytes() == BODY
    assert [(each.path, each.range) for each in server.asked][2:] == [
        ("/toy.pth", "bytes=90000-"),
        ("/moved/toy.pth", "bytes=90000-"),
    ]
    store.remove(WEIGHTS)
    server.always(status(302, Location=f"http://localhost:{server.port}/toy.pth"))
    assert "address: localhost" in refusal(store, server).found
    monkeypatch.setattr(http.client.HTTPSConnection, "connect", http.client.HTTPConnection.connect)  # without TLS
    server.always(status(302, Location=f"{server.root}/toy.pth"))
    with pytest.raises(EnvironmentFault, match="insecure") as caught:
        url = f"https://127.0.0.1:{server.port}/toy.pth"
        store.pull(WEIGHTS, partial(complete, named_by_user=True), url=url)
    assert "--mirror" in caught.value.do


def test_the_makers_address_may_not_be_this_machine(store: Store, server: WeightsServer) -> None:
    with pytest.raises(EnvironmentFault, match="address: 127"):
        store.pull(WEIGHTS, partial(complete, named_by_user=False), url=f"{server.root}/toy.pth")
    assert server.asked == []


def test_without_a_network_it_says_so(store: Store, server: WeightsServer) -> None:
    with pytest.raises(EnvironmentFault, match="unreachable") as caught:
        store.pull(WEIGHTS, partial(complete, named_by_user=True), url="http://127.0.0.1:9/toy.pth")
    assert "HTTPS_PROXY" in caught.value.do


def test_any_mixture_of_faults_ends_with_the_right_bytes_or_an_error(tmp_path: Path, server: WeightsServer) -> None:
    wrong = bytes(len(BODY))
    ended = {True: 0, False: 0}
    for seed in range(150):
        chance = random.Random(seed)
        store = Store(tmp_path / str(seed))
        menu: list[Reply] = [
            whole,
            deaf,
            breaking(chance.randrange(len(BODY))),
            breaking(chance.randrange(5)),
            status(chance.choice([404, 416, 500, 503])),
            part(f"bytes {chance.randrange(9)}-{len(BODY) - 1}/{len(BODY)}", chance.randrange(9)),
            claiming(None, BODY[: chance.randrange(len(BODY))]),
            claiming(-1, wrong),
            claiming(len(BODY), wrong[: chance.randrange(len(BODY))]),
        ]
        server.etag = chance.choice(['"first"', '"second"', "", 'W/"weak"'])
        server.replies = chance.choices(menu, k=chance.randrange(1, 9))
        try:
            pull(store, server)
        except EnvironmentFault:
            ended[False] += 1
        else:
            ended[True] += 1
        path = store.path(WEIGHTS)
        assert not path.exists() or path.read_bytes() == BODY, seed
        server.replies = []
        try:
            pull(store, server)
        except EnvironmentFault as fault:  # the first half came from a liar; it is gone now
            assert "deleted" in fault.found
            pull(store, server)
        assert path.read_bytes() == BODY, seed
    assert min(ended.values()) > 20, "both happen"


CHILD = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy_weights import WEIGHTS
from gransam_sdk.commands.weights_fetch import complete
from gransam_sdk.models.store import Store
Store(Path({home!r})).pull(WEIGHTS, partial(complete, named_by_user=True), url={url!r})
"""


def test_killed_again_and_again_it_still_arrives(store: Store, server: WeightsServer) -> None:
    server.always(dripping(10_000, 0.02))
    home = store.path(WEIGHTS).parents[2]
    code = CHILD.format(tests=str(Path(__file__).parent), home=str(home), url=f"{server.root}/toy.pth")
    for _ in range(3):
        before = len(left(store))
        child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        end = time.monotonic() + 60
        while len(left(store)) < before + 60_000 and time.monotonic() < end:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not store.path(WEIGHTS).exists() and before < len(left(store)) < len(BODY)
    server.replies = []
    assert pull(store, server).path.read_bytes() == BODY
    assert [each is not None for each in ranges(server)] == [False, True, True, True]


def test_every_error_says_what_to_do(store: Store, server: WeightsServer) -> None:
    for reply in (status(404), status(500), breaking(0), claiming(1), claiming(-1, b"<p>", kind="text/html")):
        server.always(reply)
        with pytest.raises(GranSAMError) as caught:
            pull(store, server)
        assert caught.value.exit_code == 5 and caught.value.expected and caught.value.found and caught.value.do

"""Links from a catalogue lead to the public internet, each host in its turn, and never from https back to http."""

from __future__ import annotations

import http.client
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from openverse_server import HASTY, OpenverseServer, in_turn, only, picture, send

from gransam_sdk.cli import main
from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.training.sources import download, guarded_connection
from gransam_sdk.training.sources.download import Fetcher
from gransam_sdk.training.sources.fetch_fault import FetchFault
from gransam_sdk.training.sources.guarded_connection import is_public

PUBLIC, PUBLIC_TOO, PUBLIC_6 = "93.184.215.14", "8.8.8.8", "2606:4700::6810:84e5"
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::",
]  # fmt: skip
WRITTEN = [
    "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0", "localhost", "LocalHost.",
    "a.localhost", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "169.254.169.254", "10.0.0.1", "[fe80::1]",
]  # fmt: skip


class Internet:
    """Names, and what is connected to: wherever that is, this machine's server answers.

    Attributes:
        names: The addresses of a name, one answer after the other, the last one again and again.
        lookups: How often a name was looked up.
        dialled: Addresses that were connected to, in order.
        dead: Those where nobody answers.
    """

    def __init__(self, server: OpenverseServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = server.port
        self.names: dict[str, list[list[str]]] = {}
        self.lookups: Counter[str] = Counter()
        self.dialled: list[str] = []
        self.dead: set[str] = set()
        real = socket.getaddrinfo

        def look_up(host: str, port: int | None, *more: Any, **settings: Any) -> Any:
            if host not in self.names or settings.get("flags"):
                return real(host, port, *more, **settings)
            self.lookups[host] += 1
            answers = self.names[host]
            addresses = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        def connect(family: int, kind: int, protocol: int, target: Any, limits: Any) -> socket.socket:
            self.dialled.append(target[0])
            if target[0] in self.dead:
                raise ConnectionRefusedError
            made = socket.socket()
            made.connect(("127.0.0.1", self.port))
            return made

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(guarded_connection, "open_socket", connect)

    def url(self, host: str, path: str, scheme: str = "http") -> str:
        """An address there; the host gets a public one."""
        self.names.setdefault(host, [[PUBLIC]])
        return f"{scheme}://{host}:{self.port}{path}"


@pytest.fixture
def internet(server: OpenverseServer, monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(server, monkeypatch)


def fetch(url: str, fetcher: Fetcher | None = None, *, interval: float = 0.0, **settings: Any) -> bytes:
    return (fetcher or Fetcher(HASTY)).get(url, max_bytes=10**6, interval=interval, **settings).data


def refusal(url: str, **settings: Any) -> str:
    with pytest.raises(FetchFault) as caught:
        fetch(url, **settings)
    return caught.value.reason


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC_TOO, PUBLIC_6, "1.0.0.1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", WRITTEN)
def test_a_link_to_this_machine_is_not_followed(server: OpenverseServer, tmp_path: Path, host: str) -> None:
    server.offer("fox", "1", send(picture(1)), url=f"http://{host}:{server.port}/files/1")
    found = only(server.source(allow_private=False).collect(["fox"], tmp_path, per_class=1))
    assert (found.made, found.reasons) == (0, {"address": 1})
    assert server.times_asked() == {"search": 1}, "the catalogue itself may be here: the user named it"


def test_a_name_of_this_machine_is_not_followed(server: OpenverseServer, internet: Internet, tmp_path: Path) -> None:
    internet.names["inside.example"] = [["127.0.0.1", "10.0.0.1"]]
    server.offer("fox", "1", send(picture(1)), url=internet.url("inside.example", "/files/1"))
    server.offer("fox", "2", send(picture(2)), url=internet.url("photos.example", "/files/2"))
    found = only(server.source(allow_private=False).collect(["fox"], tmp_path, per_class=2))
    assert (found.made, found.reasons) == (1, {"address": 1})
    assert internet.dialled == ["127.0.0.1", PUBLIC], "the search, and the second picture"


def test_the_address_that_was_checked_is_connected_to(server: OpenverseServer, internet: Internet) -> None:
    internet.names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    server.replies["/a"] = in_turn(send(b"whole"), send(b"broken", status=503), send(b"never"))
    url = internet.url("rebinding.example", "/a")
    assert fetch(url) == b"whole"
    assert (internet.lookups["rebinding.example"], internet.dialled) == (1, [PUBLIC])
    assert server.hosts == [f"rebinding.example:{internet.port}"], "the name goes with the request"
    assert refusal(url) == "address"
    internet.names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert refusal(url) == "address", "another attempt is another connection"
    assert internet.dialled == [PUBLIC, PUBLIC]


def test_of_several_addresses_the_public_ones_are_tried_in_turn(server: OpenverseServer, internet: Internet) -> None:
    internet.names["photos.example"] = [["192.168.0.7", PUBLIC_TOO, "127.0.0.1", PUBLIC]]
    internet.dead = {PUBLIC_TOO}
    server.replies["/a"] = send(b"whole")
    assert fetch(internet.url("photos.example", "/a")) == b"whole"
    assert internet.dialled == [PUBLIC_TOO, PUBLIC]
    internet.dead.add(PUBLIC)
    assert refusal(internet.url("photos.example", "/a")) == "unreachable"


@pytest.mark.parametrize("host", [*WRITTEN, "inside.example"])
def test_no_redirect_leads_to_this_machine(server: OpenverseServer, internet: Internet, host: str) -> None:
    internet.names["inside.example"] = [["fd00::1", "127.0.0.1"]]
    server.replies["/secret"] = send(b"secret")
    server.replies["/a"] = send(b"", status=302, Location=f"http://{host}:{server.port}/secret")
    assert refusal(internet.url("photos.example", "/a")) == "address"
    assert [path for path, _ in server.asked] == ["/a"] and internet.dialled == [PUBLIC]


def test_a_host_that_the_user_named_is_the_only_private_one(server: OpenverseServer, tmp_path: Path) -> None:
    server.replies["/a"] = in_turn(
        send(b"", status=302, Location="/b"), send(b"", status=302, Location="http://[::1]/")
    )
    server.replies["/b"] = send(b"whole")
    assert fetch(f"{server.root}/a", named_by_user=True) == b"whole"
    assert refusal(f"{server.root}/a", named_by_user=True) == "address"
    server.replies["/v1/images/"] = send(b"", status=301, Location=f"http://localhost:{server.port}/v1/images/")
    with pytest.raises(EnvironmentFault, match="address: localhost") as caught:
        server.source(allow_private=False).collect(["fox"], tmp_path, per_class=1)
    assert "--api" in caught.value.do


def test_through_a_proxy_what_is_written_is_checked(
    server: OpenverseServer, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", server.root)
    server.replies["/a"] = in_turn(send(b"whole"), send(b"", status=302, Location="http://127.1/a"))
    assert fetch("http://photos.example/a") == b"whole"
    assert server.hosts == ["photos.example"] and internet.dialled == ["127.0.0.1"], "the proxy, which the user chose"
    assert not internet.lookups, "the proxy looks names up"
    assert refusal("http://photos.example/a") == "address"
    assert {refusal(f"http://{host}/a") for host in WRITTEN} == {"address"}
    assert len(server.asked) == 2


def test_a_tunnel_through_a_proxy_is_one_download(
    server: OpenverseServer, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client.HTTPSConnection, "connect", http.client.HTTPConnection.connect)  # without TLS
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", server.root)
    server.replies["/a"] = send(b"whole")
    assert fetch("https://photos.example/a") == b"whole"
    assert [path for path, _ in server.asked] == ["photos.example:443", "/a"]
    assert server.hosts == ["photos.example"] and internet.dialled == ["127.0.0.1"] and not internet.lookups
    assert refusal("https://127.1/a") == "address" and len(server.asked) == 2


def test_from_https_nothing_leads_back_to_http(
    server: OpenverseServer, internet: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client.HTTPSConnection, "connect", http.client.HTTPConnection.connect)  # without TLS
    server.replies["/picture"] = send(picture(1))
    steps = [internet.url("a.example", "/1", "https"), internet.url("b.example", "/picture", "https")]
    server.replies["/1"] = in_turn(
        send(b"", status=302, Location=steps[1]),
        send(b"", status=302, Location=internet.url("b.example", "/picture")),
    )
    server.replies["/0"] = send(b"", status=302, Location=steps[0])
    assert fetch(internet.url("a.example", "/0")) == picture(1), "from http to https, then to https"
    server.offer("fox", "1", None, url=steps[0])
    found = only(server.source(allow_private=False).collect(["fox"], tmp_path, per_class=1))
    assert found.skipped == ((steps[0], "insecure"),)
    assert Counter(path for path, _ in server.asked)["/picture"] == 1


def test_the_host_that_answers_is_paced(
    server: OpenverseServer, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download, "wait", pauses.append)
    server.replies["/there"] = send(b"whole")
    server.replies["/moved"] = send(b"", status=302, Location=internet.url("b.example", "/there"))
    server.replies["/within"] = send(b"", status=302, Location=internet.url("c.example", "/there"))
    fetcher = Fetcher(HASTY)

    def paused(host: str, path: str) -> list[int]:
        """Pauses in units of the interval, rounded up."""
        pauses.clear()
        fetch(internet.url(host, path), fetcher, interval=1000.0)
        return [-(-int(pause) // 1000) for pause in pauses]

    assert paused("a.example", "/moved") == [], "two hosts, each for the first time"
    assert paused("b.example", "/there") == [1], "it has answered already, after a redirect"
    assert paused("d.example", "/moved") == [2], "in the middle of a download"
    assert paused("c.example", "/within") == [1], "from a host to itself"


def test_pauses_are_not_taken_off_the_time_of_an_answer(server: OpenverseServer, internet: Internet) -> None:
    server.replies["/there"] = send(b"whole")
    server.replies["/moved"] = send(b"", status=302, Location="/there")
    assert fetch(internet.url("a.example", "/moved"), interval=HASTY.deadline + 0.2) == b"whole"
    assert Counter(path for path, _ in server.asked) == {"/moved": 1, "/there": 1}, "at once"


def test_the_command_has_no_way_around(
    server: OpenverseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fill("fox", 1)
    command = ["gransam", "crawl", "-c", "fox", "-o", str(tmp_path), "--api", f"{server.root}/v1", "--per-class", "1"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
    assert "fox: 0 of 1 pictures; skipped 1 address" in capsys.readouterr().err

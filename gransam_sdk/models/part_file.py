"""An unfinished download: bytes that stay when a connection breaks, and which version of the file they belong to.

    FILE.part         the first bytes
    FILE.part.json    the address that they came from, and the server's strong ETag

The rest is asked for with ``Range`` and ``If-Range`` (RFC 9110, 13.1.5 and 14.2): a server whose file is another one by
now answers with all of it, and the download starts over. Without a strong ETag it always does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..annotate.disk import operate, put_file
from ..errors import EnvironmentFault

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 18
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_PAGES = ("text/html", "application/xhtml+xml")

Progress = Callable[[int, int], None]
"""Called with (bytes there, bytes in all)."""


class PartFile:
    """The bytes of a file that are there, in order, from its first one.

    Args:
        path: Where they lie; need not exist yet.
        url: Address that the file is fetched from; bytes from another are not gone on with.
        expected: Size of the whole file in bytes.
        progress: Told after every piece.

    Attributes:
        size: Bytes that are there.
        expected: As given.

    Raises:
        OutputError: The disk refused.
    """

    def __init__(self, path: Path, *, url: str, expected: int, progress: Progress = lambda done, total: None) -> None:
        self.path, self.url, self.expected = path, url, expected
        self._about = path.with_name(f"{path.name}.json")
        self._progress = progress
        self._etag = self._read_etag()
        self.size = operate(path, os.path.getsize, path) if path.is_file() else 0
        if self.size > expected or (self.size < expected and not self._etag):
            self.discard()

    def headers(self) -> dict[str, str]:
        """What a request for the rest sends along; nothing if there is nothing to go on with."""
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag} if self.size and self._etag else {}

    def take(self, response: http.client.HTTPResponse) -> None:
        """Writes an answer's body: behind what is there if it is the rest, else in place of it.

        Args:
            response: An answer with status 200 or 206.

        Raises:
            IncompleteRead: It broke off; what came is kept, and the rest can be asked for.
            EnvironmentFault: It is a page, or of another length; what was there before is kept.
            OutputError: The disk refused; what was written is kept.
        """
        kind = response.headers.get_content_type()
        if kind in _PAGES:
            raise self._refused(f"a web page ({kind})", do="open it in a browser: a login page may answer in its place")
        etag = response.headers.get("ETag", "").strip()
        if response.status == http.client.PARTIAL_CONTENT:
            if not self._is_the_rest(response.headers.get("Content-Range", ""), etag):
                self.discard()
                raise http.client.IncompleteRead(b"", self.expected)
        else:
            if response.length is not None and response.length != self.expected:
                raise self._refused(f"{response.length:,} bytes", do="check the address: the file may have changed")
            self._start_over(etag)
        self._append(response)

    def discard(self) -> None:
        """Deletes what is there.

        Raises:
            OutputError: The disk refused.
        """
        for path in (self.path, self._about):
            operate(path, path.unlink, missing_ok=True)
        self.size, self._etag = 0, ""

    def finish(self, target: Path) -> None:
        """Gives the whole file its name, in place of an older one, when its bytes are on the disk.

        Raises:
            OutputError: The disk refused.
        """
        handle = operate(self.path, os.open, self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            operate(self.path, os.fsync, handle)
        finally:
            os.close(handle)
        operate(target, os.replace, self.path, target)
        self.discard()

    def _is_the_rest(self, content_range: str, etag: str) -> bool:
        found = _RANGE.fullmatch(content_range.strip())
        if found is None or int(found[1]) != self.size or found[2] not in ("*", str(self.expected)):
            return False
        return not etag or etag == self._etag

    def _start_over(self, etag: str) -> None:
        """Forgets the old bytes before it notes the new version: they are never taken for one another."""
        self.discard()
        if _STRONG.fullmatch(etag):
            put_file(self._about, json.dumps({"url": self.url, "etag": etag}).encode())
            self._etag = etag

    def _append(self, response: http.client.HTTPResponse) -> None:
        handle = operate(self.path, os.open, self.path, _APPEND, 0o666)
        try:
            while piece := response.read1(_PIECE):
                room = self.expected - self.size
                if len(piece) > room:
                    raise self._refused(f"more than {self.expected:,} bytes", do="check the address")
                with memoryview(piece) as rest:
                    done = 0
                    while done < len(rest):  # a write may take less than it was given
                        written = operate(self.path, os.write, handle, rest[done:])
                        done += written
                        self.size += written
                self._progress(self.size, self.expected)
        finally:
            with contextlib.suppress(OSError):
                os.close(handle)
        if self.size < self.expected:
            raise http.client.IncompleteRead(b"", self.expected - self.size)

    def _read_etag(self) -> str:
        """The version that the bytes belong to; empty if that is not known, or they came from another address."""
        try:
            about = json.loads(self._about.read_bytes())
        except (OSError, ValueError, RecursionError):
            return ""
        if not isinstance(about, dict) or about.get("url") != self.url:
            return ""
        etag = about.get("etag")
        return etag if isinstance(etag, str) and _STRONG.fullmatch(etag) else ""

    def _refused(self, found: str, *, do: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"download of {self.url}", expected=f"weights of {self.expected:,} bytes", found=found, do=do
        )

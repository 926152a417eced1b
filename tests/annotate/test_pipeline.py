"""Reading ahead: bounded, in order, and over when its consumer is."""

from __future__ import annotations

import threading

import pytest

from gransam_sdk.annotate.pipeline import AHEAD, read_ahead


def test_decoding_stays_a_bounded_number_of_photos_ahead() -> None:
    made = []
    taken = 0
    gate = threading.Semaphore(0)

    def source():
        for number in range(20):
            made.append(number)
            yield number
            gate.release()

    with read_ahead(source()) as numbers:
        for _ in numbers:
            taken += 1
            if taken < 18:
                gate.acquire()
            # the one in hand, and those that may wait
            assert len(made) <= taken + AHEAD
    assert made == list(range(20))
    assert taken == 20


def test_an_error_in_the_reader_arrives_after_the_items_before_it() -> None:
    def source():
        yield 1
        raise LookupError("while reading")

    seen = []
    with pytest.raises(LookupError, match="while reading"), read_ahead(source()) as numbers:
        seen.extend(numbers)
    assert seen == [] or seen == [1]
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-reader"]


def test_leaving_early_stops_the_reader() -> None:
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    with read_ahead(source()) as numbers:
        assert next(numbers) == 0
    assert closed.wait(2)
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-reader"]

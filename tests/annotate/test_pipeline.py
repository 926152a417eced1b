"""Reading ahead: bounded, in order, and over when its consumer is."""

from __future__ import annotations

import threading
import time

import pytest

from gransam_sdk.annotate.pipeline import AHEAD, InWork, infer_photos, read_ahead


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
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gransam-")]


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
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gransam-")]


def test_a_thread_that_reads_from_another_ends_although_that_one_hangs() -> None:
    hung, stopped = threading.Event(), threading.Event()

    def source():
        yield 1
        hung.wait()

    def doubled(numbers):
        for number in numbers:
            yield 2 * number

    begun = time.monotonic()
    with (
        read_ahead(source(), stopped=stopped, patience=0.1) as numbers,
        read_ahead(doubled(numbers), name="gransam-engine", stopped=stopped, patience=None) as results,
    ):
        assert next(results) == 2
    assert time.monotonic() - begun < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-engine"]
    hung.set()


def test_a_thread_without_a_limit_is_waited_for() -> None:
    ended = threading.Event()

    def source():
        yield 1
        time.sleep(0.3)
        ended.set()
        yield 2

    with read_ahead(source(), patience=None) as numbers:
        next(numbers)
    assert ended.is_set()


class Engine:
    """A segmenter whose photos are seconds to wait; it counts how many it has at a time."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.running, self.most = at_once, 0, 0
        self._lock = threading.Lock()

    def infer(self, seconds: float) -> float:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(seconds)
        with self._lock:
            self.running -= 1
        return seconds


def in_work(number: int, seconds: float) -> InWork:
    return InWork(key=f"{number}", sha256="", orientation=1, redo=False, seconds={}, work=seconds)


@pytest.mark.parametrize("at_once", [1, 3])
def test_photos_run_beside_each_other_and_come_in_their_order(at_once: int) -> None:
    engine = Engine(at_once)
    waits = [0.2, *[0.01] * 11]  # the first is overtaken where it can be
    steps = list(infer_photos(iter([in_work(number, wait) for number, wait in enumerate(waits)]), engine))
    assert [step.key for step in steps] == [f"{number}" for number in range(12)]
    assert [step.work for step in steps] == waits
    assert engine.most == at_once


def test_leaving_early_ends_the_threads_of_the_graphs() -> None:
    engine = Engine(2)
    with read_ahead(infer_photos((in_work(n, 0.01) for n in range(10**6)), engine), patience=None) as steps:
        assert next(steps).key == "0"
    assert engine.running == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gransam-")]

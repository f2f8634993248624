"""The queue behind the tracker: order, repetition, outages, and what is given up."""

from __future__ import annotations

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.track.background import Background, Patience

QUICK = Patience(first_delay=0.001, longest_delay=0.004, single=0.5, closing=0.5)


class Away(OSError):
    pass


def passing(error: Exception) -> bool:
    return isinstance(error, Away)


class Work:
    """Fails ``failures`` times, then notes its number."""

    def __init__(self, number: int, failures: int, done: list[int]) -> None:
        self.number, self.failures, self.done = number, failures, done

    def __call__(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Away("nobody there")
        self.done.append(self.number)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.booleans())
def test_everything_is_done_once_and_in_order(failures: list[int], well: bool) -> None:
    done: list[int] = []
    # Repeated at once, but for as long as a busy machine needs.
    background = Background(passing, lambda: well, Patience(first_delay=0.001, longest_delay=0.004, closing=60.0))
    for number, count in enumerate(failures):
        background.submit(str(number), Work(number, count, done))
    assert background.close() == []
    assert done == list(range(len(failures)))


def test_submitting_does_not_wait() -> None:
    gate, opened = threading.Event(), []
    background = Background(passing, lambda: True, QUICK)
    for _ in range(1000):
        background.submit("waits", lambda: opened.append(gate.wait(60)))
    gate.set()
    assert background.close() == []
    assert opened == [True] * 1000


def test_what_waits_for_later_can_be_dropped() -> None:
    gate, begun, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        gate.wait(60)

    background = Background(passing, lambda: True, QUICK)
    background.submit("first", first)
    assert begun.wait(60)
    for number in range(5):
        background.submit("later", Work(number, 0, done), later=True)
    background.submit("now", Work(9, 0, done))
    assert background.drop_later() == 5
    gate.set()
    assert background.close() == [] and done == [9]


def test_outage_of_any_length_is_waited_for() -> None:
    well = threading.Event()
    done: list[int] = []

    def work() -> None:
        if not well.is_set():
            raise Away("no route")
        done.append(1)

    background = Background(passing, well.is_set, QUICK)
    background.submit("one", work)
    time.sleep(QUICK.single * 2)
    assert done == []
    well.set()
    assert background.close() == []
    assert done == [1]


def test_lasting_failure_holds_up_nothing_and_is_reported() -> None:
    done: list[int] = []

    def broken() -> None:
        raise ValueError("no such run\nTraceback ...")

    background = Background(passing, lambda: True, QUICK)
    background.submit("broken", broken)
    background.submit("fine", Work(1, 0, done))
    lost = background.close()
    assert [str(item) for item in lost] == ["broken: no such run"]
    assert done == [1]


def test_what_was_laid_aside_is_tried_again_at_the_end_in_order() -> None:
    done: list[int] = []

    def needs(number: int, before: int) -> None:
        if before not in done:
            raise LookupError("not yet")
        done.append(number)

    background = Background(passing, lambda: True, QUICK)
    background.submit("third", lambda: needs(3, 1))
    background.submit("fourth", lambda: needs(4, 3))
    background.submit("first", lambda: done.append(1))
    assert background.close() == []
    assert done == [1, 3, 4]


def test_work_that_fails_while_the_service_is_well_is_laid_aside() -> None:
    done: list[int] = []
    calls = []

    def poison() -> None:
        calls.append(time.monotonic())
        raise Away("500")

    background = Background(passing, lambda: True, Patience(first_delay=0.001, single=0.05, closing=0.1))
    background.submit("poison", poison)
    background.submit("fine", Work(1, 0, done))
    deadline = time.monotonic() + 5
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done == [1]
    assert [item.what for item in background.close()] == ["poison"]
    assert len(calls) > 3


def test_closing_gives_a_dead_service_up_and_names_all_that_is_lost() -> None:
    calls = []

    def dead() -> None:
        calls.append(1)
        raise Away("connection refused")

    patience = Patience(first_delay=0.01, longest_delay=0.05, closing=0.2)
    background = Background(passing, lambda: False, patience)
    for number in range(50):
        background.submit(str(number), dead)
    lost = background.close()
    assert [item.what for item in lost] == [str(number) for number in range(50)]
    assert lost[0].why == "connection refused" and "stayed away" in lost[-1].why
    assert len(calls) < 50  # once given up, the rest is not even tried


def test_late_calls_are_harmless() -> None:
    background = Background(passing, lambda: True, QUICK)
    assert background.close() == []
    background.submit("late", lambda: None)
    assert background.close() == []


def test_work_for_later_waits_until_nothing_else_is_to_do() -> None:
    done: list[str] = []
    started, go_on = threading.Event(), threading.Event()
    background = Background(passing, lambda: True, QUICK)
    background.submit("hold", lambda: (started.set(), go_on.wait(10)))
    started.wait(10)
    for name in ("later 1", "later 2"):
        background.submit(name, lambda name=name: done.append(name), later=True)
    background.submit("now 1", lambda: done.append("now 1"))
    assert background.waiting == 3
    background.no_more_later()
    background.submit("last", lambda: done.append("last"))
    go_on.set()
    assert background.close() == []
    assert done == ["now 1", "later 1", "later 2", "last"] and background.waiting == 0


def test_work_for_later_is_done_before_the_end() -> None:
    done: list[str] = []
    background = Background(passing, lambda: True, QUICK)
    for name in ("a", "b", "c"):
        background.submit(name, lambda name=name: done.append(name), later=True)
    assert background.close() == [] and done == ["a", "b", "c"]

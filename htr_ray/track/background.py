"""A queue with one thread behind it: work done later, in order, and again until it succeeds."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long a failing piece of work is tried again. All in seconds."""

    first_delay: float = 0.25
    """Wait before the second attempt; it doubles with every further one."""
    longest_delay: float = 15.0
    """Upper bound of the wait between two attempts."""
    single: float = 30.0
    """A piece that fails this long although the service is well is laid aside until the end."""
    closing: float = 120.0
    """What ``close()`` may spend on failing attempts in all; work that succeeds does not count."""


@dataclass(frozen=True)
class Lost:
    """A piece of work that could not be done: what it was, and the last error."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


Work = tuple[str, Callable[[], object]]


class Background:
    """Runs submitted work in one daemon thread, in the order of submission.

    Work that is submitted for ``later`` (what an earlier driver left undone) waits until nothing
    else is to do, so that it does not hold up what people look at now.

    Work that fails for a passing reason (``is_passing(error)``) is repeated with
    exponentially growing waits. While ``is_well()`` is False the service itself is away:
    then the queue waits for as long as it takes. Work that fails on its own - a lasting
    error, or a passing one for longer than ``patience.single`` - is laid aside, so that it
    does not hold up the rest, and gets one more round in :meth:`close`, in the old order.

    The thread is a daemon on purpose: a driver that crashes without calling ``close`` must
    exit, not wait for a server that is away.

    Args:
        is_passing: tells whether an error may go away by itself.
        is_well: a cheap call to the service; False when it is away. Must not raise.
        patience: how long to try.
    """

    def __init__(
        self,
        is_passing: Callable[[Exception], bool],
        is_well: Callable[[], bool],
        patience: Patience | None = None,
    ) -> None:
        self._is_passing = is_passing
        self._is_well = is_well
        self._patience = patience or Patience()
        self._now: deque[Work] = deque()
        self._later: deque[Work] = deque()
        self._closing = threading.Event()
        self._closed_at = 0.0
        self._budget = self._patience.closing
        self._given_up = False
        self._aside: list[tuple[str, Callable[[], object], str]] = []
        self._lost: list[Lost] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="htr-ray-track", daemon=True)
        self._thread.start()

    def submit(self, what: str, work: Callable[[], object], *, later: bool = False) -> None:
        """Queue ``work``, described for people by ``what``. Returns at once; never raises."""
        with self._news:
            if self._closing.is_set():
                log.warning("not logged, the tracker is closed already: %s", what)
                return
            (self._later if later else self._now).append((what, work))
            self._news.notify()

    def no_more_later(self) -> None:
        """Put what waits for later before all that is submitted from now on."""
        with self._news:
            self._now.extend(self._later)
            self._later.clear()

    def drop_later(self) -> int:
        """Forget what waits for later; returns how many pieces that were."""
        with self._news:
            dropped = len(self._later)
            self._later.clear()
            return dropped

    @property
    def waiting(self) -> int:
        """How many pieces of work are queued."""
        return len(self._now) + len(self._later)

    def close(self) -> list[Lost]:
        """Do what is queued, stop the thread, and return what could not be done (in order)."""
        with self._news:
            if not self._closing.is_set():
                self._closed_at = time.monotonic()
                self._now.extend(self._later)
                self._later.clear()
                self._closing.set()
                self._news.notify()
        self._thread.join()
        return list(self._lost)

    def _next(self) -> Work | None:
        """The next piece of work, waited for; None when all is done and no more will come."""
        with self._news:
            while not self._now and not self._later:
                if self._closing.is_set():
                    return None
                self._news.wait()
            return (self._now or self._later).popleft()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            what, work = item
            error = self._attempt(what, work)
            if error is not None:
                self._aside.append((what, work, first_line(error)))
                if not self._given_up:
                    log.warning("not logged yet, tried again at the end: %s (%s)", what, first_line(error))
        for what, work, reason in self._aside:
            if not self._given_up:
                error = self._attempt(what, work)
                if error is None:
                    continue
                reason = first_line(error)
            self._lost.append(Lost(what, reason))

    def _attempt(self, what: str, work: Callable[[], object]) -> Exception | None:
        """Do one piece of work, again and again if need be; the last error, or None when done."""
        delay = self._patience.first_delay
        struggling: float | None = None  # since when it fails although the service is well
        away = False
        while not self._given_up:
            began = time.monotonic()
            try:
                work()
            except Exception as error:  # whatever it is, it must not end the thread
                if not self._is_passing(error):
                    return error
                if self._is_well():
                    struggling = struggling if struggling is not None else began
                    if time.monotonic() - struggling > self._patience.single or self._budget <= 0:
                        return error
                else:
                    struggling = None
                    if not away:
                        away = True
                        log.warning("MLflow is away, the log waits for it (%s)", first_line(error))
                    if self._budget <= 0:
                        self._given_up = True
                        return error
                self._rest(delay)
                delay = min(delay * 2, self._patience.longest_delay)
                if self._closing.is_set():
                    self._budget -= time.monotonic() - max(began, self._closed_at)
            else:
                if away:
                    log.warning("MLflow is back; logging what has waited")
                return None
        return TimeoutError("not tried, MLflow stayed away")

    def _rest(self, delay: float) -> None:
        if self._closing.is_set():
            time.sleep(delay)
        else:
            self._closing.wait(delay)  # close() ends the wait: one more attempt at once


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type when it has none; at most 300 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]

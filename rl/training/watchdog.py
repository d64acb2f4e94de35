"""Ends a run whose environments do not return: interrupts the step, or ends the process where nothing interrupts it."""

import ctypes
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from rl.checks import within

log = logging.getLogger(__name__)

TICKS = 10  # looks in the time that a call may take
GRACE_SECONDS = 5.0  # from the interruption until the process is ended
SIGNAL = signal.SIGVTALRM  # hardly used by anything else


class StepTimeout(BaseException):
    """The interruption of a call that took too long; no ``except Exception`` of the user may swallow it."""


class Watchdog:
    """A thread that looks whether one of some functions has not returned for too long in the thread that opened it.

    It looks at that thread's stack ten times in ``seconds``, so the functions themselves cost nothing. It counts its
    looks and no clock, so a process that was stopped for a while, or a machine that slept, ends no run. A call that
    takes too long is interrupted by an exception, in the main thread with the help of a signal. If it does not end
    within ``GRACE_SECONDS`` even so, ``save`` is called, a line printed and the process ended. Code that never lets go
    of Python's lock cannot be seen from a thread; in a worker process it can.

    Args:
        seconds: that one call may take; None for any time.
        functions: those that are watched.
        save: saves what there is, from another thread, while the call still lasts; it returns what to say of it.

    Raises:
        ValueError: ``seconds`` is below a thousandth.
        TimeoutError: on leaving, a call took too long.
    """

    def __init__(self, seconds: float | None, *functions: Callable[..., object], save: Callable[[], str] | None = None):
        if seconds is not None:
            within(1e-3, math.inf, env_timeout=seconds)
        self.seconds, self.save = seconds, save
        self.codes = {function.__code__ for function in functions if hasattr(function, "__code__")}
        self.closed, self.interrupting, self.leaving = threading.Event(), False, False

    def __enter__(self) -> "Watchdog":
        """Begin to watch the calls of this thread."""
        if self.seconds is None:
            return self
        self.watched = threading.get_ident()
        self.in_main = threading.current_thread() is threading.main_thread()
        if self.in_main:
            self.usual = signal.signal(SIGNAL, self._interrupt)
        self.thread = threading.Thread(target=self._watch, args=(self.seconds,), name="watchdog", daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End watching, and name the fault in the words of an ordinary exception."""
        if self.seconds is None:
            return
        self.closed.set()
        self.thread.join()
        if self.in_main:
            signal.signal(SIGNAL, self.usual)
        if isinstance(error, StepTimeout):
            told = TimeoutError(f"the environments: {error}")
            for note in getattr(error, "__notes__", ()):
                told.add_note(note)
            raise told from error

    @property
    def sentence(self) -> str:
        """What is said of a call that took too long."""
        return f"it took longer than env_timeout={self.seconds:g} s"

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: raise in the main thread; if the process is just being ended, stay here."""
        if self.leaving:
            threading.Event().wait()
        if self.interrupting:
            self.interrupting = False
            raise StepTimeout(self.sentence)

    def _watch(self, seconds: float) -> None:
        """Look, wait, and look again."""
        before, looks = None, 0
        while not self.closed.wait(seconds / TICKS):
            now = self._find_call()
            looks = looks + 1 if now is before and now is not None else 0
            before = now
            if looks >= TICKS and now is not None:
                return self._end(now)

    def _find_call(self) -> FrameType | None:
        """Return the outermost frame of a watched function that the thread is in."""
        frame, found = sys._current_frames().get(self.watched), None
        while frame is not None:
            if frame.f_code in self.codes:
                found = frame
            frame = frame.f_back
        return found

    def _end(self, call: FrameType) -> None:
        """Interrupt a call; if it does not end even so, save and end the process."""
        self.interrupting = True
        if self.in_main:
            signal.pthread_kill(self.watched, SIGNAL)
        else:
            interruption = type("StepTimeout", (StepTimeout,), {"__str__": lambda _: self.sentence})
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.watched), ctypes.py_object(interruption))
        for _ in range(TICKS):
            if self.closed.wait(GRACE_SECONDS / TICKS) or self._find_call() is not call:
                return
        if not self.in_main:  # the process is not ours to end
            log.error("the environments: %s, and cannot be interrupted", self.sentence)
            return
        self.leaving = True
        saved = "" if self.save is None else self.save()
        end = saved and f"; {saved}"
        print(f"the environments: {self.sentence}, and cannot be interrupted{end}", file=sys.stderr, flush=True)
        os._exit(1)

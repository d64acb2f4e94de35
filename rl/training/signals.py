"""The signals that end a run: noted until an update is whole, or raised where nothing would be lost by it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ECHO = 0.3  # seconds: `timeout` and others send a signal to a process and to its group, so it comes twice

Handler = Callable[[int, FrameType | None], object] | int | None


class Stopped(KeyboardInterrupt):
    """The end of a run or command by a signal: an interrupt that knows which one it was.

    Args:
        number: of the signal.
        sentence: what became of the work, and how to go on.

    Attributes:
        exit_code: of a process that ends by it, as shells count: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, number: int, sentence: str = ""):
        super().__init__(number, sentence)
        self.number, self.sentence = number, sentence
        self.exit_code = 128 + number

    def __str__(self) -> str:
        """Return a sentence without its subject."""
        return f"stopped by {signal.Signals(self.number).name}" + (f" {self.sentence}" if self.sentence else "")


class StopSignals:
    """Handlers of SIGINT, SIGTERM and SIGHUP: while open, the first signal is only noted; a second one acts as usual.

    Inside ``raising`` it ends the block at once instead. What comes again within ``ECHO`` seconds is the same signal. A
    SIGHUP that is ignored (``nohup``) stays so. Outside the main thread, where Python allows no handlers, nothing is
    handled at all.

    Attributes:
        number: of the signal that came; None before.
    """

    number: int | None = None
    _last: tuple[int, float] = (0, -ECHO)  # number and time of the newest signal that any of these handlers saw

    def __enter__(self) -> "StopSignals":
        """Take the place of the usual handlers."""
        self.number, self._raises, self._process = None, False, os.getpid()
        self._usual: dict[int, Handler] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                usual = signal.getsignal(number)
                if usual is not None and not (number == signal.SIGHUP and usual == signal.SIG_IGN):
                    self._usual[number] = usual
                    signal.signal(number, self._handle)
        return self

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While open, a signal raises ``Stopped`` wherever it comes, and one that came before does so at once."""
        before, self._raises = self._raises, True
        try:
            if self.number is not None:
                raise Stopped(self.number)
            yield
        finally:
            self._raises = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; let a later one, or one to a process that was forked from this one, act as usual."""
        before, now = StopSignals._last, time.monotonic()
        StopSignals._last = number, now
        if os.getpid() != self._process:
            self._restore()
            os.kill(os.getpid(), number)
        elif number == before[0] and now - before[1] < ECHO:
            return
        elif self.number is not None:
            self._act_as_usual(number, frame)
        else:
            self.number = number
            if self._raises:
                raise Stopped(number)

    def _act_as_usual(self, number: int, frame: FrameType | None) -> None:
        """Do what the handler before would have done."""
        usual = self._usual[number]
        StopSignals._last = 0, -ECHO  # for a handler of this class it is no echo
        if callable(usual):
            usual(number, frame)
        elif usual != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        """Put the usual handlers back."""
        for number, usual in self._usual.items():
            signal.signal(number, usual)

    def __exit__(self, *_: object) -> None:
        """Put the usual handlers back."""
        self._restore()

"""A server in a thread of its own, for tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any


@contextmanager
def serving(main: Callable[..., object]) -> Iterator[Any]:
    """While open, ``main(listening)`` serves; the server that it hands to ``listening`` is yielded."""
    started: Queue[Any] = Queue()
    thread = Thread(target=main, args=(started.put,), daemon=True)
    thread.start()
    server = started.get(timeout=60)
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(timeout=60)
        assert not thread.is_alive()

"""Take the pictures of web pages that stand in the tutorials: PNG files, by a Chromium without a window.

python docs/screenshots.py tensorboard RUN_DIR docs/tutorials/tensorboard.png

A page that another command serves is one more entry of ``PAGES``. Chromium is that of the system (Debian: ``apt install
chromium``).
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

BROWSERS = "chromium", "chromium-browser", "google-chrome"
COLOURS = 64  # of a picture: flat areas and text need no more, and the file is a third as large
PATIENCE = 60.0  # seconds until a server must answer


@dataclass(frozen=True)
class Page:
    """A page to be photographed.

    Attributes:
        command: what serves it, ``python -m`` left out; ``{run}`` and ``{port}`` are filled in.
        path: of the page on the server.
        size: of the picture in pixels.
        settle: seconds, by the clock of the page, until all is drawn.
    """

    command: tuple[str, ...]
    path: str = "/"
    size: tuple[int, int] = (1200, 800)
    settle: float = 10.0


PAGES = {
    "tensorboard": Page(
        ("tensorboard.main", "--logdir", "{run}", "--port", "{port}"),
        "/?darkMode=false#scalars&tagFilter=%5Eeval%2F%7Cmemory_gap%24%7Closses%2Fentropy&_smoothingWeight=0",
    )
}


def find_browser() -> str:
    """Return the path of a browser.

    Raises:
        SystemExit: there is none.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"screenshots: no browser was found, install one of {', '.join(BROWSERS)}")


@contextmanager
def serving(page: Page, run: Path) -> Iterator[str]:
    """While open, the page is served; its address is yielded.

    Raises:
        SystemExit: its server ended, or did not answer in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.format(run=run, port=port) for word in page.command]
    server = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while not answers(address):
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"screenshots: {' '.join(words)} does not serve {address}")
            time.sleep(0.2)
        yield address + page.path
    finally:
        server.terminate()
        server.wait()


def answers(address: str) -> bool:
    """Tell whether a server answers."""
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE):
            return True
    except OSError:
        return False


def photograph(browser: str, address: str, page: Page, output: Path) -> None:
    """Write a picture of the page in few colours."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "page.png"
        options = [
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={page.size[0]},{page.size[1]}",
            f"--virtual-time-budget={1000 * page.settle:.0f}",
            f"--screenshot={taken}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # as root, in a container say, it runs without only
        ]
        done = subprocess.run([browser, *options, address], capture_output=True, text=True)
        if not taken.is_file():
            raise SystemExit(f"screenshots: {browser} took no picture: {done.stderr.strip()[-500:]}")
        with Image.open(taken) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True)


def main(name: str, run: Path, output: Path) -> None:
    """Take one picture."""
    browser = find_browser()
    if not run.is_dir():
        raise SystemExit(f"screenshots: {run} is no folder")
    with serving(PAGES[name], run) as address:
        photograph(browser, address, PAGES[name], output)
    print(f"{address} -> {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", choices=PAGES)
    parser.add_argument("run", type=Path, help="a folder of runs")
    parser.add_argument("output", type=Path, help="the PNG file")
    given = parser.parse_args()
    main(given.page, given.run, given.output)

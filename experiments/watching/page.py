"""Episodes as one page of HTML that asks no other host for anything: pictures, curves and a slider inside it."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from experiments.watching.panels import Line, Pair, Panel, describe_numbers, make_panels
from rl.training.watching import WatchedEpisode

TEMPLATE = Path(__file__).with_name("page.html")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 92, 58, 10, 10, 10
"""Of a panel and its margins, in units of its ``viewBox``."""
COLOURS = 6
SMALL = 8_000  # bytes of a PNG that is never replaced by a JPEG
SIDE = 480  # pixels of the longer side of a picture


def import_pillow() -> Any:
    """Import what encodes pictures.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError("pictures need the package pillow: pip install 'recurrent-ppo[video]'") from error
    return PIL.Image


class Images:
    """Pictures as texts that a page can hold; one that is there already is not held again.

    Attributes:
        texts: data URLs.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[bytes, int] = {}

    def keep(self, picture: np.ndarray) -> int:
        """Take a picture, uint8 ``[H, W, 3]``, made smaller if it is large; return its number."""
        raw = bytes(repr(picture.shape), "ascii") + picture.tobytes()
        if raw not in self._numbers:
            self._numbers[raw] = len(self.texts)
            self.texts.append(_encode(picture))
        return self._numbers[raw]


def _encode(picture: np.ndarray) -> str:
    """Return a data URL: a PNG, which is exact, or a JPEG where that is much smaller."""
    image = import_pillow().fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    kind, content = "png", _save(image, "png", optimize=True)
    if len(content) > SMALL:
        smaller = _save(image, "jpeg", quality=85)
        if 2 * len(smaller) < len(content):
            kind, content = "jpeg", smaller
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


def _save(image: Any, kind: str, **options: Any) -> bytes:
    with BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def make_page(
    title: str, notes: Iterable[str], pairs: list[Pair], images: list[str], fps: float, zero_at: int | None
) -> str:
    """Return the page.

    Args:
        title: its heading.
        notes: what is said below it, a sentence each.
        pairs: the episodes; their pictures are numbers of ``images``.
        images: data URLs.
        fps: steps in a second.
        zero_at: from this step on the memory was zeroed in the second episode of each pair.
    """
    panels = [make_panels(pair) for pair in pairs]
    data = {
        "images": images,
        "fps": fps,
        "zero_at": zero_at,
        "left": LEFT,
        "width": WIDTH - LEFT - RIGHT,
        "episodes": [_collect(pair, own) for pair, own in zip(pairs, panels, strict=True)],
    }
    parts = {
        "title": escape(title),
        "notes": "".join(f"<p>{escape(note)}</p>" for note in notes),
        "buttons": "".join(_draw_button(number, pair) for number, pair in enumerate(pairs, 1)),
        "episodes": "\n".join(
            _draw_episode(number, pair, own, zero_at)
            for number, (pair, own) in enumerate(zip(pairs, panels, strict=True), 1)
        ),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], TEMPLATE.read_text())


def _collect(pair: Pair, panels: list[Panel]) -> dict[str, Any]:
    """Return what the script of the page needs of an episode."""
    runs = [_collect_run(episode, bool(number)) for number, episode in enumerate(pair.both)]
    lines = [[_round(line.values) for line in panel.lines] for panel in panels]
    return {"moments": pair.moments, "runs": runs, "panels": lines}


def _collect_run(episode: WatchedEpisode, zeroed: bool) -> dict[str, Any]:
    def write(step: int, of_actions: bool) -> str:
        told = []
        for number, track in enumerate(episode.tracks):
            value = (track.actions if of_actions else track.observations)[step]
            text = "does not take part" if value is None else describe_numbers(value)
            told.append(text if len(episode.tracks) == 1 else f"{number} {track.name}: {text}")
        return "\n".join(told)

    return {
        "zeroed": zeroed,
        "steps": episode.length,
        "pictures": episode.pictures,
        "actions": [f"action {write(step, True)}" for step in range(episode.length)],
        "seen": [write(step, False) for step in range(episode.length)],
        "end": f"the end: {', '.join(dict.fromkeys(track.end for track in episode.tracks))}",
    }


def _round(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON can hold them, to six digits, None for NaN."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]


def _draw_button(number: int, pair: Pair) -> str:
    returns = [f"return {pair.kept.total:.4g}"]
    if pair.zeroed is not None:
        returns.append(f"zeroed {pair.zeroed.total:.4g}")
    told = f"<small>seed {pair.seed}, {pair.kept.length} steps<br>{', '.join(returns)}</small>"
    return f'<button type="button">episode {number}{told}</button>'


def _draw_episode(number: int, pair: Pair, panels: list[Panel], zero_at: int | None) -> str:
    figures = []
    for zeroed, episode in enumerate(pair.both):
        name = "memory kept" if not zeroed else f"memory zeroed from step {zero_at} on"
        picture = f'<img alt="{name}">' if episode.pictures else ""
        seen = '<pre class="seen told"></pre>'
        if episode.pictures:
            seen = '<details><summary>observation</summary><pre class="seen"></pre></details>'
        caption = f"<figcaption>{name}<span>return {episode.total:.4g}</span></figcaption>"
        figures.append(f'<figure>{caption}{picture}<pre class="action told"></pre>{seen}</figure>')
    drawn = "\n".join(_draw_panel(panel, pair.moments, zero_at if pair.zeroed else None) for panel in panels)
    label = f'id="episode-{number}" aria-label="episode {number}"'
    return f'<section class="episode" {label} hidden>\n<div>{"".join(figures)}</div>\n<div>{drawn}</div>\n</section>'


def _draw_panel(panel: Panel, moments: int, zero_at: int | None) -> str:
    """Return a panel: its title, a key to its curves, and an SVG whose cursor the script moves."""
    low, high = panel.find_range()
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = LEFT + across * np.arange(moments) / max(1, moments - 1)

    def draw(line: Line) -> str:
        y = TOP + down * (high - line.values) / (high - low)
        shown = ~np.isnan(y)
        joined = shown & np.append(False, shown[:-1])
        points = [
            f"{'L' if joined[step] else 'M'}{x[step]:.1f} {y[step]:.1f}" + ("" if joined[step] else "h.01")
            for step in np.flatnonzero(shown)
        ]
        kind = ' class="zeroed"' if line.zeroed else ""
        return f'<path{kind} style="stroke:var(--c{line.colour % COLOURS})" d="{"".join(points)}"/>'

    keys = "".join(
        f'<span class="key" style="color:var(--c{line.colour % COLOURS})">{escape(line.label)}</span>'
        for line in panel.lines
        if line.label and not line.zeroed
    )
    bounds = "".join(
        f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{value:.3g}</text>'
        for y, value in ((TOP + 6, high), (HEIGHT - BOTTOM, low))
    )
    wipe = ""
    if zero_at is not None and zero_at < moments:
        wipe = f'<line class="wipe" x1="{x[zero_at]:.1f}" x2="{x[zero_at]:.1f}" y1="0" y2="{HEIGHT}"/>'
    cursor = f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{HEIGHT}"/>'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(panel.title)}">'
    curves = "".join(map(draw, panel.lines))
    return (
        f'<div class="panel"><h2>{escape(panel.title)}{keys}<b></b></h2>{svg}{bounds}{wipe}{curves}{cursor}</svg></div>'
    )

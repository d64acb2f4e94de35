"""Episodes as videos: the picture on the left, the curves on the right, bright up to the step that is shown."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.watching.page import import_pillow
from experiments.watching.panels import Pair, Panel, make_panels

SUFFIXES = (".mp4", ".gif")
SIDE = 480  # pixels: the width of a picture, at most its height
CURVES_WIDTH, PANEL_HEIGHT = 460, 96
DPI = 100
BACKGROUND, LATER = 255, 0.25  # white; how much of the curves is seen of steps that are still to come


def import_moviepy() -> Any:
    """Import what writes videos, with what draws the curves.

    Raises:
        ImportError: a package is not installed; the message names the extra.
    """
    try:
        import matplotlib.figure  # noqa: F401
        from moviepy import ImageSequenceClip
    except ImportError as error:
        raise ImportError(f"videos need the package {error.name}: pip install 'recurrent-ppo[video]'") from error
    return ImageSequenceClip


def fit_picture(picture: np.ndarray) -> np.ndarray:
    """Scale a picture, uint8 ``[H, W, 3]``, to the place that a video has for it."""
    image = import_pillow().fromarray(picture)
    scale = min(SIDE / image.width, SIDE / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    kind = import_pillow().Resampling
    return np.asarray(image.resize(size, kind.NEAREST if scale >= 2 else kind.LANCZOS))


def write_video(path: Path, pair: Pair, title: str, fps: float, zero_at: int | None) -> None:
    """Write an episode, as mp4 or gif; a broken attempt leaves nothing behind.

    Args:
        path: ends in one of ``SUFFIXES``.
        pair: the episode; its pictures are those that ``fit_picture`` returns.
        title: what is written above.
        fps: steps in a second.
        zero_at: see ``experiments.watching.page.make_page``.
    """
    clip = import_moviepy()(compose_frames(pair, title, zero_at), fps=fps)
    handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    try:
        if path.suffix == ".gif":
            clip.write_gif(name, logger=None)
        else:
            clip.write_videofile(name, codec="libx264", audio=False, logger=None)
        os.chmod(name, 0o666 & ~_read_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def compose_frames(pair: Pair, title: str, zero_at: int | None) -> list[np.ndarray]:
    """Return the frames of a video, uint8 ``[H, W, 3]`` each, of even height and width as its codec needs them."""
    curves, columns = draw_curves(make_panels(pair), pair.moments, title, zero_at if pair.zeroed else None)
    pictures = [episode.pictures for episode in pair.both]
    shape = [max(picture.shape[axis] for own in pictures for picture in own) for axis in (0, 1)]
    gap = 16
    height = max(len(curves), len(pictures) * (shape[0] + gap) + gap)
    width = shape[1] + 2 * gap + curves.shape[1]
    frames = []
    for moment in range(pair.moments):
        frame = np.full((height + height % 2, width + width % 2, 3), BACKGROUND, dtype=np.uint8)
        for number, own in enumerate(pictures):
            picture = own[min(moment, len(own) - 1)]
            if moment >= len(own):  # this one is over, the other goes on
                picture = _fade(picture)
            top = gap + number * (shape[0] + gap)
            frame[top : top + len(picture), gap : gap + picture.shape[1]] = picture
        now, seen = columns[moment], curves.copy()
        seen[:, now + 2 :] = _fade(seen[:, now + 2 :])
        seen[_find_axes(curves), now - 1 : now + 1] = (40, 50, 66)
        frame[: len(curves), shape[1] + 2 * gap : shape[1] + 2 * gap + curves.shape[1]] = seen
        frames.append(frame)
    return frames


def _fade(picture: np.ndarray) -> np.ndarray:
    return np.rint(LATER * picture + (1 - LATER) * BACKGROUND).astype(np.uint8)


def _find_axes(curves: np.ndarray) -> slice:
    """Return the rows of the curves that the cursor crosses: all but the title's."""
    return slice(30, len(curves) - 20)


def draw_curves(
    panels: list[Panel], moments: int, title: str, zero_at: int | None
) -> tuple[np.ndarray, list[int]]:
    """Draw panels below each other.

    Args:
        panels: the curves.
        moments: so many steps stand on the axis.
        title: written above.
        zero_at: a line marks this step; None for no line.

    Returns:
        The drawing, uint8 ``[H, W, 3]``, and the column of each moment in it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (CURVES_WIDTH / DPI, (PANEL_HEIGHT * len(panels) + 50) / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=8)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        for line in panel.lines:
            style = {"linestyle": "--", "alpha": 0.8} if line.zeroed else {"label": line.label or None}
            marker = "." if len(line.values) == 1 else None
            axes.plot(line.values, color=f"C{line.colour}", linewidth=1.4, marker=marker, **style)
        if any(line.label for line in panel.lines):
            axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=4)
        axes.set_title(panel.title, fontsize=7, loc="left", pad=2)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
        if zero_at is not None:
            axes.axvline(zero_at, color="C3", linewidth=0.8, linestyle=":")
    all_axes[-1].set_xlim(-0.5, max(moments - 0.5, 0.5))
    all_axes[-1].set_xlabel("step", fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawing = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    places = all_axes[-1].transData.transform([(moment, 0.0) for moment in range(moments)])[:, 0]
    return drawing, np.rint(places).astype(int).tolist()

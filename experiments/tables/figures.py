"""Figures of runs, as PNG: their frame, and learning curves with bands over seeds."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import IO, Any, Literal

import numpy as np

from experiments.tables.curves import Curve, Panels, align
from experiments.tables.statistics import FEWEST, RESAMPLES_OF_CURVES, Estimate, estimate_iqm
from rl.checkpoint import atomic_write

Band = Literal["ci", "iqr", "minmax"] | None
BANDS = {
    "ci": "Band: its 95 % bootstrap interval.",
    "iqr": "Band: from the lower to the upper quartile of the seeds.",
    "minmax": "Band: from the worst to the best seed.",
}
LINE = "Line: interquartile mean over seeds."
SINGLE = f"Fewer than {FEWEST} seeds, or no steps in common: a line for each, no band."
LONGER = "Thin: runs where not all of a line's are there."
SMALL, LARGE = (4.2, 3.0), (6.3, 4.2)
"""Inches of a panel among others, and of one that stands alone."""


def load_pyplot() -> Any:
    """Return what draws, without a window.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('plots need matplotlib: pip install "recurrent-ppo[plot]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


@contextmanager
def open_figure(count: int, output: Path, panel: tuple[float, float] | None = None) -> Iterator[tuple[Any, list[Any]]]:
    """While open, a figure of ``count`` panels, of which the axes are yielded too; it is written in the end.

    Args:
        count: of panels.
        output: the file; its name says the format.
        panel: inches of a panel; None for the usual ones, larger where there is a single one.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    pyplot = load_pyplot()
    columns = min(4, count)
    rows = -(-count // columns)
    width, height = panel or (SMALL if count > 1 else LARGE)
    size = width * columns, height * rows
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    try:
        for axis in axes.flat[count:]:
            axis.set_visible(False)
        for axis in axes.flat[:count]:
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        yield figure, list(axes.flat[:count])
        with atomic_write(output) as file:
            save_figure(figure, file, output.suffix[1:].lower() or "png")
    finally:
        pyplot.close(figure)


def save_figure(figure: Any, file: IO[bytes], kind: str) -> None:
    """Write a figure; a PNG with a palette of 256 colours, which takes a third of the space."""
    if kind != "png":
        figure.savefig(file, dpi=110, format=kind)
        return
    from PIL import Image  # matplotlib needs it as well

    drawn = BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)  # thin lines keep theirs
    picture.save(file, format="png", optimize=True)


def put_caption(figure: Any, sentences: Iterable[str]) -> None:
    """Write below a figure what its lines and bands are."""
    width = int(figure.get_figwidth() * 16)  # letters of this size in a line
    figure.supxlabel(fill(" ".join(sentences), width), fontsize=7, color="0.3")


def set_title(axis: Any, title: str) -> None:
    """Write a title above a panel, in small letters if it is long."""
    axis.set_title("\n".join(fill(line, 60) for line in title.splitlines()), fontsize=10 if len(title) < 60 else 7)


def draw_curves(
    panels: Panels,
    tag: str,
    output: Path,
    levels: dict[str, dict[str, float]] | None = None,
    band: Band = "ci",
    panel_size: tuple[float, float] | None = None,
) -> None:
    """Draw one panel for each task, and in it one line for each agent: interquartile mean over seeds, with a band.

    Args:
        panels: what to draw.
        tag: what the y axes show.
        output: the PNG file.
        levels: panel -> {label: value} of horizontal lines.
        band: what is drawn around a line of ``FEWEST`` seeds and more; of fewer each is drawn, without a band.
        panel_size: see ``open_figure``.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    told = set[str]()
    with open_figure(len(panels), output, panel_size) as (figure, axes):
        for axis, (panel, lines) in zip(axes, panels.items(), strict=True):
            for name, curves in sorted(lines.items()):
                aligned = align(curves)
                if len(curves) < FEWEST or not len(aligned.steps):
                    told |= draw_each(axis, name, curves)
                else:
                    label = f"{name} ({len(curves)} seeds)"
                    told |= draw_line(axis, label, aligned.steps, [aligned.values], band, aligned.rest)
            for index, (label, value) in enumerate((levels or {}).get(panel, {}).items()):
                axis.axhline(value, color="0.5", linestyle=("--", ":")[index % 2], linewidth=1, label=label)
            set_title(axis, panel)
            label_steps(axis, tag)
        put_caption(figure, [sentence for sentence in (LINE, *BANDS.values(), SINGLE, LONGER) if sentence in told])


def draw_each(axis: Any, name: str, curves: list[Curve]) -> set[str]:
    """Draw the curves of a few seeds in one colour; return what the caption has to say of them."""
    count = f"{len(curves)} seeds, a line each" if len(curves) > 1 else "1 seed"
    color = None
    for index, (steps, values) in enumerate(curves):
        marker = "o" if len(steps) == 1 else None
        label = f"{name} ({count})" if index == 0 else None
        color = axis.plot(steps, values, color=color, marker=marker, label=label)[0].get_color()
    return {SINGLE}


def draw_line(
    axis: Any, label: str, steps: np.ndarray, tasks: list[np.ndarray], band: Band, rest: Iterable[Curve] = ()
) -> set[str]:
    """Draw the interquartile mean of runs, and a band.

    Args:
        axis: to draw on.
        label: of the line.
        steps: ``[points]``; of a single one a marker is drawn.
        tasks: values ``[runs, points]`` of each task.
        band: see ``draw_curves``.
        rest: pieces of single runs, drawn thin.

    Returns:
        What the caption has to say of it.
    """
    found = estimate_band(tasks, band)
    single = len(steps) == 1
    color = axis.plot(steps, found.value, marker="o" if single else None, label=label)[0].get_color()
    told = {LINE}
    if band is not None and found.low is not None and found.high is not None:
        told.add(BANDS[band])
        if single:
            axis.vlines(steps, found.low, found.high, color=color)
        else:
            axis.fill_between(steps, found.low, found.high, color=color, alpha=0.25, linewidth=0)
    for piece in rest:
        axis.plot(*piece, color=color, linewidth=0.6, alpha=0.7, marker="." if len(piece[0]) == 1 else None)
        told.add(LONGER)
    return told


def estimate_band(tasks: list[np.ndarray], band: Band) -> Estimate:
    """Return the interquartile mean of all runs of all tasks with the ends of a band, ``[points]`` each.

    Args:
        tasks: values ``[runs, points]`` of each task.
        band: which.
    """
    if band == "ci":
        return estimate_iqm(tasks, RESAMPLES_OF_CURVES)
    found = estimate_iqm(tasks, resamples=1)
    quantiles = {"iqr": (0.25, 0.75), "minmax": (0, 1)}
    low, high = np.quantile(np.concatenate(tasks), quantiles[band], axis=0) if band else (None, None)
    return Estimate(found.value, low, high)


def label_steps(axis: Any, name: str) -> None:
    """Label the axes of a panel of curves."""
    axis.set_xlabel("environment steps", fontsize=8)
    axis.set_ylabel(name, fontsize=8)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    axis.xaxis.get_offset_text().set_fontsize(8)
    axis.legend(fontsize=7)

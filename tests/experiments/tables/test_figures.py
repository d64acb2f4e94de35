"""Figures: what is drawn for how many seeds, and what the caption says of it."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from experiments.tables import figures
from experiments.tables.figures import BANDS, LINE, LONGER, SINGLE, draw_curves, estimate_band

matplotlib.use("Agg")
STEPS = np.array([10, 20, 30])


def make_curves(*offsets, steps=STEPS):
    return [(steps, steps / 10 + offset) for offset in offsets]


@pytest.fixture
def drawn(cwd, monkeypatch):
    """``drawn(panels, ...)``: the axes and the caption of the figure."""
    kept, usual = [], figures.put_caption

    def keep(figure, sentences):
        told = list(sentences)
        usual(figure, told)
        kept.append((figure.axes, " ".join(told)))

    monkeypatch.setattr(figures, "put_caption", keep)

    def draw(panels, **options):
        draw_curves(panels, "tag", cwd / "figure.png", **options)
        assert (cwd / "figure.png").read_bytes().startswith(b"\x89PNG")
        return kept.pop()

    return draw


def read_lines(axis):
    return [line.get_ydata().tolist() for line in axis.lines]


def read_legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_four_seeds_are_a_line_with_a_band(drawn):
    (axis,), caption = drawn({"task": {"gru": make_curves(0, 1, 3, 100)}})
    assert read_lines(axis) == [[3, 4, 5]]  # 1 + (1 + 3) / 2: the best and the worst do not count
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].max() > 5
    assert read_legend(axis) == ["gru (4 seeds)"] and caption == f"{LINE} {BANDS['ci']}"


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_are_drawn_each(drawn, count):
    (axis,), caption = drawn({"task": {"gru": make_curves(*range(count))}})
    assert read_lines(axis) == [[1, 2, 3], [2, 3, 4]][:count] and not axis.collections
    assert len({line.get_color() for line in axis.lines}) == 1
    assert read_legend(axis) == [["gru (1 seed)"], ["gru (2 seeds, a line each)"]][count - 1]
    assert caption == SINGLE


def test_without_a_band(drawn):
    (axis,), caption = drawn({"task": {"gru": make_curves(0, 1, 2)}}, band=None)
    assert not axis.collections and caption == LINE


def test_bands_by_hand():
    values = np.array([[0.0], [1], [2], [3], [100]])
    found = {band: estimate_band([values], band) for band in ("iqr", "minmax", None)}
    assert {band: each.value.item() for band, each in found.items()} == dict.fromkeys(found, 2.0)
    assert (found["iqr"].low, found["iqr"].high) == (1, 3)
    assert (found["minmax"].low, found["minmax"].high) == (0, 100)
    assert found[None].low is None
    interval = estimate_band([values], "ci")
    assert 0 <= interval.low < 2 < interval.high <= 100


def test_pictures_are_small_and_keep_their_colours(cwd):
    """A PNG has a palette; other formats are left as they are."""
    for name in ("small.png", "large.jpg", "lines.pdf"):
        with figures.open_figure(1, cwd / name) as (_, (axis,)):
            for index in range(5):
                axis.plot(STEPS, index * STEPS, color=f"C{index}", linewidth=9)
                axis.fill_between(STEPS, index * STEPS, 40 + index * STEPS, alpha=0.3)
    with Image.open(cwd / "small.png") as picture:
        assert (picture.mode, picture.size) == ("P", (693, 462))
        colours = {colour for _, colour in picture.convert("RGB").getcolors()}
    assert (255, 255, 255) in colours
    for index in range(5):
        wanted = [round(255 * part) for part in matplotlib.colors.to_rgb(f"C{index}")]
        assert min(max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) for colour in colours) <= 16
    assert (cwd / "lines.pdf").read_bytes().startswith(b"%PDF") and (cwd / "large.jpg").stat().st_size > 0


def test_longer_runs_go_on_thin(drawn):
    curves = [*make_curves(0, 1), *make_curves(2, steps=np.array([10, 20, 30, 40]))]
    (axis,), caption = drawn({"task": {"gru": curves}})
    line, rest = axis.lines
    assert line.get_xdata().tolist() == [10, 20, 30] and rest.get_xdata().tolist() == [30, 40]
    assert rest.get_linewidth() < line.get_linewidth() and LONGER in caption


def test_runs_without_a_step_in_common_are_drawn_each(drawn):
    curves = [*make_curves(0, 1), *make_curves(2, steps=np.array([40, 50]))]
    (axis,), caption = drawn({"task": {"gru": curves}})
    assert len(axis.lines) == 3 and caption == SINGLE


def test_single_points_are_markers(drawn):
    """Of one run, and of several: then with the interval as a bar."""
    one = np.array([10])
    panels = {"one": {"gru": make_curves(0, steps=one)}, "more": {"gru": make_curves(0, 1, 2, steps=one)}}
    (alone, more), _ = drawn(panels)
    assert [line.get_marker() for line in (*alone.lines, *more.lines)] == ["o", "o"]
    (bar,) = more.collections
    assert bar.get_segments()[0][:, 1].tolist() == [1, 3]


def test_levels_and_panels(drawn):
    """Horizontal lines where they are asked for only; no more axes than panels are seen."""
    panels = {name: {"gru": make_curves(0)} for name in "abcde"}
    axes, _ = drawn(panels, levels={"b": {"threshold": 0.5, "memoryless": 0.1}})
    assert [len(axis.lines) for axis in axes] == [1, 3, 1, 1, 1, 0, 0, 0]
    assert [axis.get_visible() for axis in axes] == [True] * 5 + [False] * 3
    assert axes[1].lines[1].get_ydata() == [0.5, 0.5]

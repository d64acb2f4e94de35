"""Videos: a frame for each moment, bright up to its step, with the picture of that step."""

import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("PIL.Image")

from experiments.watching import video
from experiments.watching.panels import make_panels
from experiments.watching.video import Film, Packed, draw_curves, import_moviepy, write_video

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (100, 100, 0)]


@pytest.fixture
def filmed(pair):
    """Four pictures of one colour each with the memory kept, two with it zeroed."""
    pictures = [Packed.pack(np.full((3, 6, 3), colour, dtype=np.uint8)) for colour in COLOURS]
    pair.kept.pictures, pair.zeroed.pictures = pictures, pictures[:2]
    return pair


@pytest.mark.parametrize(
    ("shape", "fitted"), [((3, 6, 3), (240, 480, 3)), ((960, 480, 3), (480, 240, 3)), ((2000, 2, 3), (480, 1, 3))]
)
def test_pictures_are_scaled_to_their_place(shape, fitted):
    assert Packed.pack(np.full(shape, 7, dtype=np.uint8)).unpack().shape == fitted


def test_small_pictures_keep_their_pixels():
    picture = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Packed.pack(picture).unpack()[60::120, 60::120], picture)


def test_each_moment_has_its_picture(filmed):
    """The one that has ended stays, but pale."""
    film = Film(filmed, "title", 1)
    top = video.GAP + video.CAPTION + 5
    for moment in range(4):
        frame = film.compose(moment)
        assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0 and frame.dtype == np.uint8
        assert tuple(frame[top, video.GAP + 5]) == COLOURS[moment]
        below = tuple(frame[top + film.tile, video.GAP + 5])
        assert below == (COLOURS[moment] if moment < 2 else (191, 241, 191))
    np.testing.assert_array_equal(film.compose(9), film.compose(3))


def test_what_is_still_to_come_is_pale(filmed):
    film = Film(filmed, "title", 1)
    columns = film.columns
    assert len(columns) == 4 and columns == sorted(columns)
    first, last = film.compose(0)[:, film.left :], film.compose(3)[:, film.left :]
    inside = slice(video.TITLE, len(film.curves) - video.AXIS)
    after = slice(columns[0] + 1, columns[3] - 1)
    assert first[inside, after].min() > 150 > last[inside, after].min()
    np.testing.assert_array_equal(last[inside, after], film.curves[inside, after])
    np.testing.assert_array_equal(first[: video.TITLE, : film.curves.shape[1]], film.curves[: video.TITLE])
    assert (first[inside, columns[0]] == video.INK).all()


def test_curves_of_one_step_are_points(make_track):
    from experiments.watching.panels import Pair
    from rl.training.watching import WatchedEpisode

    panels = make_panels(Pair(1, WatchedEpisode([make_track([1], value=[1])], [])))
    drawing, columns = draw_curves(panels, 1, "title", None)
    assert drawing.dtype == np.uint8 and len(columns) == 1 and 0 < columns[0] < drawing.shape[1]


def test_the_axis_counts_whole_steps(filmed, monkeypatch):
    """Twenty of them would be marked at 2.5, 7.5 and so on."""
    figures = []
    make = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr("matplotlib.figure.Figure", lambda **keys: figures.append(make(**keys)) or figures[-1])
    draw_curves(make_panels(filmed), 20, "title", None)
    ticks = figures[0].axes[-1].get_xticks()
    assert len(ticks) > 2 and all(tick == round(tick) for tick in ticks)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio does not close what it reads
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_files_have_all_frames(filmed, tmp_path, suffix):
    pytest.importorskip("moviepy")
    reader = pytest.importorskip("imageio.v3")
    path = tmp_path / f"video{suffix}"
    write_video(path, filmed, "title", 10.0, 1)
    frames = reader.imread(path)
    assert len(frames) == 4 and [each.name for each in tmp_path.iterdir()] == [path.name]
    top = video.GAP + video.CAPTION + 100
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame[top, 200].astype(int) == pytest.approx(np.array(colour), abs=12)


def test_a_broken_attempt_leaves_nothing(filmed, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, compose, duration):
            assert duration == 0.4

        def write_gif(self, *_, **__):
            raise OSError("no room")

    monkeypatch.setattr(video, "import_moviepy", lambda: Broken)
    with pytest.raises(OSError, match="no room"):
        write_video(tmp_path / "video.gif", filmed, "title", 10.0, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["moviepy", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, "moviepy", type(sys)("moviepy"))
    sys.modules["moviepy"].VideoClip = None
    monkeypatch.setitem(sys.modules, package if package == "moviepy" else "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"^videos need the package .*: pip install 'recurrent-ppo\[video\]'$"):
        import_moviepy()

"""The page: everything is inside it, every step has its picture and its numbers, and a browser shows it."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest

from experiments.watching import page
from experiments.watching.page import Images, make_page
from experiments.watching.panels import Pair
from rl.training.watching import WatchedEpisode

RED, BLUE = np.array([255, 0, 0], dtype=np.uint8), np.array([0, 0, 255], dtype=np.uint8)
VOID = {"meta", "link", "img", "input", "path", "line", "br"}


class Reader(HTMLParser):
    """Notes all elements, and that each one that is opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in ("p",):
            assert self.open.pop() == tag
        else:
            self.open.remove(tag)

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def find(self, tag, **attributes):
        return [given for name, given in self.elements if name == tag and attributes.items() <= given.items()]


def read_data(text):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture
def images():
    pytest.importorskip("PIL.Image")
    return Images()


@pytest.fixture
def drawn(pair, images):
    """The page of two episodes; the first has pictures, four with the memory kept and two without."""
    red, blue = (images.keep(np.full((4, 6, 3), colour)) for colour in (RED, BLUE))
    pair.kept.pictures, pair.zeroed.pictures = [red, red, blue, blue], [red, red]
    return make_page("<Agent> & {{data}}", ["One.", "Two </script>."], [pair, Pair(8, pair.kept)], images.texts, 4.0, 1)


def test_it_asks_no_other_host_for_anything(drawn):
    reader = Reader(drawn)
    policy = reader.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"https?:|//\w|@import|url\(|<iframe|<object", drawn)
    links = [given[key] for _, given in reader.elements for key in ("src", "href") if key in given]
    assert links == ["data:,"]


def test_texts_of_others_are_texts(drawn):
    reader = Reader(drawn)
    assert reader.texts["h1"] == ["<Agent> & {{data}}"] and reader.texts["p"][:2] == ["One.", "Two </script>."]
    assert drawn.count("</script>") == 2


def test_every_moment_has_its_picture_and_numbers(drawn):
    data = read_data(drawn)
    first, second = data["episodes"]
    assert (data["fps"], data["zero_at"], first["moments"], second["moments"]) == (4.0, 1, 4, 4)
    kept, zeroed = first["runs"]
    assert (kept["pictures"], zeroed["pictures"]) == ([0, 0, 1, 1], [0, 0]) and len(second["runs"]) == 1
    assert kept["actions"] == ["action 0", "action 1", "action 2"] and kept["end"] == "the end: terminated"
    assert kept["seen"] == ["0 0.5", "1 0.5", "2 0.5"] and (kept["zeroed"], zeroed["zeroed"]) == (False, True)
    assert first["panels"][2] == [[0.5, 0.25, 1.0], [0.5, 0.1]]


def test_images_are_held_once_and_exactly(drawn):
    from PIL import Image

    first, second = read_data(drawn)["images"]
    for text, colour in ((first, RED), (second, BLUE)):
        kind, _, content = text.partition(";base64,")
        picture = np.asarray(Image.open(BytesIO(b64decode(content))).convert("RGB"))
        assert kind == "data:image/png" and picture.shape == (4, 6, 3) and (picture == colour).all()


def test_large_pictures_become_small(images):
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    assert images.keep(noise) == 0 and images.keep(noise.copy()) == 0 and images.keep(noise[::-1].copy()) == 1
    from PIL import Image

    kind, _, content = images.texts[0].partition(";base64,")
    assert kind == "data:image/jpeg" and Image.open(BytesIO(b64decode(content))).size == (480, 320)


def test_each_episode_has_its_panels(drawn):
    reader = Reader(drawn)
    assert [given["id"] for given in reader.find("section")] == ["episode-1", "episode-2"]
    titles = [given["aria-label"] for given in reader.find("svg")]
    assert titles[:5] == titles[5:] == [
        "norm of the memory", "entropy of the policy (nats)", "value estimate", "reward", "return so far",
    ]  # fmt: skip
    assert len(reader.find("figure")) == 3 and len(reader.find("img")) == 3
    assert len(reader.find("path", **{"class": "zeroed"})) == 6 and len(reader.find("path")) == 6 + 12
    assert len(reader.find("line", **{"class": "wipe"})) == 5 and len(reader.find("line", **{"class": "cursor"})) == 10
    assert "".join(reader.texts["small"][:2]) == "seed 7, 3 stepsreturn 1, zeroed -1"


def test_a_curve_lies_where_its_numbers_are(make_track):
    """Four moments, of which the second has no value: a point, a gap, a line down to the bottom."""
    track = make_track([0] * 4, value=[2.0, float("nan"), 4.0, 0.0])
    drawn = make_page("t", [], [Pair(1, WatchedEpisode([track], []))], [], 5.0, None)
    path = Reader(drawn).find("path")[0]["d"]
    left, right = page.LEFT, page.WIDTH - page.RIGHT
    third = left + 2 / 3 * (right - left)
    bottom = page.HEIGHT - page.BOTTOM
    assert (
        path == f"M{left:.1f} {(page.TOP + bottom) / 2:.1f}h.01M{third:.1f} {page.TOP:.1f}h.01L{right:.1f} {bottom:.1f}"
    )


def test_without_pictures_the_observations_are_shown(pair):
    reader = Reader(make_page("t", [], [pair], [], 5.0, 1))
    assert reader.find("img") == [] and len(reader.find("pre", **{"class": "seen told"})) == 2


def test_players_are_told_apart(make_track):
    one, two = make_track([1, 1], "a", value=[0, 0]), make_track([1, float("nan")], "b", value=[0, float("nan")])
    two.actions[1] = two.observations[1] = None
    data = read_data(make_page("t", [], [Pair(1, WatchedEpisode([one, two], []))], [], 5.0, None))
    assert data["episodes"][0]["runs"][0]["actions"] == [
        "action 0 a: 0\n1 b: 0",
        "action 0 a: 1\n1 b: does not take part",
    ]
    assert data["episodes"][0]["panels"][0] == [[0.0, 0.0], [0.0, None]]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("fragment", "image", "action", "step"), [("", 0, "action 0", 0), ("#1-3", 1, "the end", 3)])
def test_a_browser_shows_the_step_that_is_asked_for(drawn, tmp_path, fragment, image, action, step):
    path = tmp_path / "page.html"
    path.write_text(drawn)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, f"{path.as_uri()}{fragment}"], capture_output=True, text=True, check=True, timeout=120
    )
    section = re.search(r'<section class="episode"[^>]*>.*?</section>', done.stdout, re.DOTALL)[0]
    assert "hidden" not in section.partition(">")[0] and done.stdout.count(" hidden") == 1
    assert f'src="{read_data(drawn)["images"][image]}"' in section and action in section
    assert f"step {step} of 3" in done.stdout
    x = page.LEFT + (page.WIDTH - page.LEFT - page.RIGHT) * step / 3
    assert f'<line class="cursor" x1="{x:g}" x2="{x:g}"' in section

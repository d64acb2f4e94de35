"""Each tutorial under ``docs/tutorials`` from top to bottom, as a reader does it, with budgets that are cut."""

import re
import runpy
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving import serving
from tests.test_docs import BLOCK, COMMANDS, PYTHON, calls
from tests.tutorials import FILE, TUTORIALS, write_files

ROOT = Path(__file__).parents[2]
CUT = {
    "train": ("total_steps=2_048", "evaluate_every=1_024", "evaluate_episodes=2", "final_episodes=2"),
    "evaluate": ("episodes=2",),
    "record": ("episodes=20",),
    "imitate": ("imitation.epochs=1", "final_episodes=2"),
}
"""Last words of commands; the last one of a key counts."""
NEEDS = {"deploy": "experiment=t_maze_10 run_dir=runs/maze/lstm"}
EXTRAS = {"recordings": "minari"}
LOOKED_AT = "tensorboard", "docs/screenshots.py"
"""Programs that a reader leaves open."""


@pytest.fixture
def follow(command, cwd, monkeypatch):
    """``follow(page)``: do what it says."""
    monkeypatch.syspath_prepend(str(cwd))
    monkeypatch.chdir(cwd)

    def run(words, opened):
        program, *rest = words
        if program == "python" and rest[0] == "-m":
            name = rest[1].removeprefix("experiments.")
            ended = command(name, *rest[2:], *CUT.get(name, ()))
            assert ended.code == 0, f"{' '.join(words)}\n{ended.err}"
        elif program == "python" and rest[0] == "examples/serve.py":
            main = runpy.run_path(str(ROOT / rest[0]))["main"]
            return opened.enter_context(serving(lambda listening: main(rest[1], 0, (), listening))).server_port
        else:
            assert LOOKED_AT[0] == program or rest[0] in LOOKED_AT, words
        return None

    def follow(page):
        text, port, namespace = (ROOT / page).read_text(), None, {"__name__": "page"}
        write_files(text, cwd)
        with ExitStack() as opened:
            for language, block in BLOCK.findall(text):
                if language in COMMANDS:
                    for words in calls(block):
                        port = run(words, opened) or port
                elif language in PYTHON and not FILE.match(f"```python\n{block}```"):
                    exec(compile(block.replace(":8000", f":{port}"), page, "exec"), namespace)

    return follow


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_can_be_followed(page, follow, command):
    name = Path(page).stem
    pytest.importorskip(EXTRAS.get(name, "gymnasium"))
    if name in NEEDS:
        assert command("train", *NEEDS[name].split(), *CUT["train"]).code == 0
    follow(page)


def test_tutorials_name_their_pictures():
    """Every picture in the folder stands on a page."""
    pages = "".join((ROOT / page).read_text() for page in TUTORIALS)
    pictures = {path.name for path in (ROOT / "docs/tutorials").glob("*.png")}
    assert pictures and pictures <= set(re.findall(r"\]\((\w+\.png)\)", pages))

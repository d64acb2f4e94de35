"""``python -m experiments.plot``."""

import numpy as np
import pytest
from matplotlib import image

SIZE = 330, 462  # pixels of one panel of several


ALONE = 462, 693


def train(command, tiny, *arguments):
    assert command("train", *tiny, "total_steps=160", *arguments).code == 0


def coloured(picture):
    """Share of pixels that are neither white, grey nor black."""
    return float((np.ptp(picture[..., :3], axis=-1) > 0.1).mean())


def test_one_panel_for_each_environment(command, tiny, cwd):
    for seed in (1, 2):
        train(command, tiny, "env=t_maze", f"seed={seed}", f"run_dir=sweep/{seed}")
    train(command, tiny, "env=copy_sequence", "run_dir=other")

    ended = command("plot", "runs=[sweep]", "output=one.png")
    assert (ended.code, ended.err) == (0, "") and "2 runs -> one.png" in ended.out
    picture = image.imread("one.png")
    assert picture.shape[:2] == ALONE
    assert coloured(picture) > 0.002

    ended = command("plot", f"runs=[sweep,./sweep/1,{cwd}/sweep/2]", "output=same.png")
    assert ended.code == 0 and "2 runs -> same.png" in ended.out
    (cwd / "same.png").unlink()

    ended = command("plot", "runs=[sweep/1,sweep/2,other]", "output=deep/two.png", "tag=losses/value_loss")
    assert ended.code == 0 and "3 runs -> deep/two.png" in ended.out
    picture = image.imread("deep/two.png")
    assert picture.shape[:2] == (SIZE[0], 2 * SIZE[1])
    assert all(coloured(half) > 0.002 for half in np.split(picture, 2, axis=1))
    assert {path.name for path in cwd.iterdir()} == {"sweep", "other", "one.png", "deep"}


def test_kinds_of_figures(command, tiny, cwd):
    """Of two cores on two tasks; a run that lacks the tag is named and left out."""
    for core in ("gru", "mlp"):
        for env in ("t_maze", "copy_sequence"):
            where = f"env={env}", f"agent/core={core}", f"run_dir=sweep/{core}-{env}"
            train(command, tiny, *where, "evaluate_every=80", "evaluate_episodes=2")
    train(command, tiny, "env=t_maze", "run_dir=sweep/other", "final_episodes=0")
    tag = "eval/episodic_return"
    for kind in ("profile", "improvement", "memory", "efficiency"):
        ended = command("plot", "runs=[sweep]", f"kind={kind}", f"tag={tag}", f"output={kind}.png")
        assert (ended.code, ended.err) == (0, "")
        lacks = {"efficiency": tag, "memory": f"{tag}_memory_zeroed"}.get(kind, "final return")
        lines = [f"1 of 5 runs have no {lacks} and are left out: sweep/other", f"4 runs -> {kind}.png"]
        assert ended.out.splitlines() == lines
        picture = image.imread(f"{kind}.png")
        size = (SIZE[0], 4 * SIZE[1]) if kind == "memory" else ALONE  # two tasks of two agents
        assert picture.shape[:2] == size and coloured(picture) > 0.0002
    ended = command("plot", "runs=[sweep]", f"tag={tag}", "band=null")
    assert ended.out.splitlines() == [lines[0], "4 runs -> curves.png"]
    ended = command("plot", "runs=[sweep]", "kind=profile", "bounds.TMase=[0,1]")
    assert ended.code == 1 and "bounds.TMase: no run is on TMase; did you mean TMaze?" in ended.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["kind=bars"], "kind='bars' is not 'curves' or 'memory' or 'efficiency' or 'profile' or 'improvement'"),
        (["band=std"], "band='std' is not 'ci' or 'iqr' or 'minmax' or null"),
        (["kind=profile", "band=iqr"], "band=iqr: kind=profile has ci or null"),
        (["bounds.TMaze=[0,1]"], "bounds={'TMaze': [0, 1]}: kind=curves draws returns as they are; leave it out"),
        (
            ["kind=memory", "bounds.TMaze=[0,1]"],
            "bounds={'TMaze': [0, 1]}: kind=memory draws returns as they are; leave it out",
        ),
        (["kind=efficiency", "tag=[a,b]"], "tag=['a', 'b']: kind=efficiency draws one tag"),
        ([], "nowhere holds no run: no config.yaml in it or below it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_options_without_a_use_are_refused(command, arguments, sentence):
    ended = command("plot", "runs=[nowhere]", *arguments)
    assert (ended.code, ended.err) == (1, f"plot: {sentence}\n")

"""``python -m experiments.plot``."""

import numpy as np
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

    ended = command("plot", "runs=[sweep/1,sweep/2,other]", "output=deep/two.png", "tag=losses/value_loss")
    assert ended.code == 0 and "3 runs -> deep/two.png" in ended.out
    picture = image.imread("deep/two.png")
    assert picture.shape[:2] == (SIZE[0], 2 * SIZE[1])
    assert all(coloured(half) > 0.002 for half in np.split(picture, 2, axis=1))
    assert {path.name for path in cwd.iterdir()} == {"sweep", "other", "one.png", "deep"}

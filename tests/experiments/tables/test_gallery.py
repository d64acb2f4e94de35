"""Pictures of what a memory is worth."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.tables import gallery
from experiments.tables.curves import NoTagError
from experiments.tables.gallery import KEPT, ZEROED, draw_memory, read_levels
from rl.training import Metrics


def make_run(folder, **tags):
    with Metrics(folder, total_steps=20) as metrics:
        for step, values in enumerate(zip(*tags.values(), strict=True), start=1):
            metrics.scalars({tag.replace("__", "/"): value for tag, value in zip(tags, values, strict=True)}, 10 * step)
    return folder


@pytest.fixture
def asked(cwd, monkeypatch):
    """What the figure is asked to show."""
    calls = []
    monkeypatch.setattr(gallery, "draw_curves", lambda *arguments: calls.append(arguments))
    return calls


def test_memory_kept_and_zeroed_are_two_lines_of_one_panel(asked):
    runs = [make_run(Path(f"run{seed}"), **{KEPT: (0, seed), ZEROED: (-1, -seed)}) for seed in (1, 2)]
    Path("run1/result.json").write_text(
        json.dumps({"optimal_return": 1.0, "memoryless_return": None, "env_steps": 20, "total_steps": 20})
    )
    draw_memory({"maze": runs}, Path("picture.png"), "iqr", (1.0, 2.0))
    ((panels, _, output, levels, *rest),) = asked
    assert output == Path("picture.png") and rest == ["iqr", (1.0, 2.0)]
    shown = {name: [values.tolist() for _, values in curves] for name, curves in panels["maze"].items()}
    assert shown == {"memory kept": [[0, 1], [0, 2]], "memory zeroed": [[-1, -1], [-1, -2]]}
    assert all(np.array_equal(steps, [10, 20]) for curves in panels["maze"].values() for steps, _ in curves)
    assert levels == {"maze": {"best return": 1.0}}


def test_a_run_that_has_not_ended_has_no_levels(tmp_path):
    assert read_levels(tmp_path) == {}


def test_a_run_without_the_control_is_refused(asked):
    with pytest.raises(NoTagError, match="memory_zeroed"):
        draw_memory({"maze": [make_run(Path("run"), **{KEPT: (0, 1)})]}, Path("picture.png"))
    assert not asked

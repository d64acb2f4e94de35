import sys

import pytest
from omegaconf import OmegaConf

from experiments.launch.working_folder import add_working_folder


def test_the_working_folder_is_searched_last_and_not_for_a_run_folder(cwd, monkeypatch):
    before = ["/somewhere", "/else"]
    for keys, added in {
        "seed": True,
        "run": False,
        "runs": False,
        "resume": False,
        "run trust": True,
        "resume trust": True,
    }.items():
        monkeypatch.setattr(sys, "path", before[:])
        add_working_folder(OmegaConf.create({key: ["x"] for key in keys.split()}))
        add_working_folder(OmegaConf.create({key: ["x"] for key in keys.split()}))
        assert sys.path == [*before, *([str(cwd)] if added else [])]
    monkeypatch.setattr(sys, "path", ["", *before])  # it is there already
    add_working_folder(OmegaConf.create({"run": None, "trust": []}))
    assert sys.path == ["", *before]


@pytest.mark.parametrize("key", ["run", "runs", "resume", "init_from", "weights"])
@pytest.mark.parametrize("folder", [".", "..", "link"])
def test_nothing_is_imported_from_a_run_folder_that_one_stands_in(key, folder, cwd, monkeypatch):
    """Trusting a package elsewhere must not let lazy imports of others (mujoco, jax) find a stranger's module."""
    (cwd / "link").symlink_to(cwd)
    value = [folder] if key == "runs" else folder
    for entry in ("", str(cwd)):  # as ``python -m`` puts it in front
        monkeypatch.setattr(sys, "path", [entry, "/somewhere"])
        add_working_folder(OmegaConf.create({key: value, "trust": ["mine"]}))
        assert sys.path == ["/somewhere"]

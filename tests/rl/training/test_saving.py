"""What of a run is kept: the newest checkpoint, the one before, the best; nothing good is lost to something bad."""

import shutil

import pytest
import torch

from envs.probes import Counter, EchoCue
from rl.agents import RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.training.run import checkpoint_path
from rl.training.trainer import Trainer


@pytest.fixture
def make(tmp_path, scribe):
    """A trainer of 2 environments whose evaluations are worth ``returns`` in turn; 8 steps to an update."""

    def build(total_steps, returns=(), agent=None, **options):
        left = iter(returns)
        given = {"evaluate": lambda: {"eval/episodic_return": next(left)}, "evaluate_every": 8} if returns else {}
        return Trainer(agent or scribe(2, 4), Counter(2, 5), tmp_path, total_steps, **given, **options)

    return build


@pytest.fixture
def steps_in(tmp_path):
    """Environment steps of the agent in a checkpoint of the run; None if there is none."""

    def read(name):
        path = tmp_path / "checkpoints" / name
        return load_checkpoint(path)["agent"]["env_steps"] if path.exists() else None

    return read


def test_the_newest_and_the_one_before_are_kept(make, notebook, steps_in):
    make(32, checkpoint_every=8).train(notebook)
    assert (steps_in("last.pt"), steps_in("previous.pt"), steps_in("best.pt")) == (32, 24, None)
    second = make(40, checkpoint_every=8)
    second.resume()
    second.train(notebook)
    assert (steps_in("last.pt"), steps_in("previous.pt")) == (40, 32)


def test_the_best_is_replaced_by_a_better_one_only(make, notebook, steps_in):
    """Also after a resumption, which knows what the best was worth."""
    make(32, [1.0, 3.0, 2.0, 3.0]).train(notebook)
    assert steps_in("best.pt") == 16
    second = make(48, [2.5, float("nan")])
    second.resume()
    assert second.best_return == 3.0
    second.train(notebook)
    assert steps_in("best.pt") == 16
    third = make(56, [4.0])
    third.resume()
    third.train(notebook)
    assert steps_in("best.pt") == 56


def test_a_damaged_best_is_told_and_replaced(make, notebook, steps_in, tmp_path, caplog):
    make(16, [1.0, 3.0]).train(notebook)
    (tmp_path / "checkpoints/best.pt").write_bytes(b"noise")
    second = make(24, [2.0])
    second.resume()
    assert len(caplog.messages) == 1
    assert "best.pt is damaged" in caplog.messages[0] and "the next evaluation replaces it" in caplog.messages[0]
    second.train(notebook)
    assert steps_in("best.pt") == 24


def test_a_damaged_newest_is_no_reason_to_lose_the_one_before(make, notebook, steps_in, tmp_path, caplog):
    """The run goes on from there, and the damaged file never takes its place."""
    make(32, checkpoint_every=8).train(notebook)
    path = checkpoint_path(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    second = make(40, checkpoint_every=8)
    second.resume()
    assert second.agent.env_steps == 24
    assert len(caplog.messages) == 1
    second.collect()
    second.agent.learn(second.obs)
    second.save(notebook)
    assert (steps_in("last.pt"), steps_in("previous.pt")) == (32, 24)


def test_what_was_learned_is_saved_where_curves_cannot_be_written(make, notebook, steps_in, tmp_path):
    """Not even a run folder that was deleted meanwhile keeps it from that; the fault is told afterwards."""

    def fail():
        shutil.rmtree(tmp_path, ignore_errors=True)
        raise OSError(28, "no space", "events")

    notebook.flush = fail
    with pytest.raises(OSError, match="events"):
        make(16).train(notebook)
    assert steps_in("last.pt") == 16


class Spoiling(RecurrentPPO):
    """An agent that is ruined by its third update though the loss is finite."""

    def learn(self, next_observation=None):
        loss = super().learn(next_observation)
        if self.env_steps == 48:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return loss


def test_a_ruined_agent_leaves_the_last_good_checkpoint_and_says_how_to_go_on(make, notebook, tmp_path):
    envs = EchoCue(2)
    space = Counter(2).single_observation_space, envs.single_action_space
    options = {"num_envs": 2, "num_steps": 8, "bptt": 4, "num_minibatches": 1, "epochs": 1}
    trainer = make(96, agent=Spoiling(*space, 4, seed=0, **options), checkpoint_every=16)
    with pytest.raises(FloatingPointError, match=r"agent\.network\..* holds a number that is not finite") as ruined:
        trainer.train(notebook)
    path = checkpoint_path(tmp_path)
    assert f"{path} is as it was, go on with resume={tmp_path}" in str(ruined.value)
    assert load_checkpoint(path)["agent"]["env_steps"] == 32
    other = make(96, agent=RecurrentPPO(*space, 4, seed=1, **options))
    other.resume()
    assert torch.isfinite(next(other.agent.network.parameters())).all()


WRONG = {
    ("episodes",): None,
    ("episodes", "lengths"): [1],
    ("episodes", "recent"): 3,
    ("episodes", "returns"): [],
    ("evaluations",): {},
    ("evaluations", 0): {"return": 1.0},
    ("seconds",): [1.0],
    ("envs",): None,
    ("envs", "running"): "x",
    ("envs", "count"): torch.zeros(3, 3),
    ("envs", "rng", "state"): [],
    ("resetting",): torch.zeros(3, dtype=torch.bool),
    ("obs",): torch.zeros(2, 9),
    ("agent",): None,
}


@pytest.mark.parametrize("place", WRONG, ids=lambda place: ".".join(map(str, place)))
def test_a_wrong_entry_is_named_with_its_file_and_nothing_is_changed(make, notebook, tmp_path, place):
    trainer = make(16, [1.0, 2.0], agent=make_agent())
    trainer.train(notebook)
    path = checkpoint_path(tmp_path)
    content = load_checkpoint(path)
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = WRONG[place]
    torch.save(content, path)
    victim = make(32, agent=make_agent())
    with pytest.raises(ValueError, match=rf"^{path}: .*{place[0]}"):
        victim.resume()
    assert (victim.agent.env_steps, victim.obs, victim.evaluations, victim.saved_steps) == (0, None, [], None)


def make_agent():
    envs = EchoCue(2)
    options = {"num_envs": 2, "num_steps": 4, "bptt": 4, "num_minibatches": 1, "epochs": 1}
    return RecurrentPPO(Counter(2).single_observation_space, envs.single_action_space, 4, seed=0, **options)

"""A fault in code of the user: what was learned is saved, and the exception says how to go on."""

import signal
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper

from envs.probes import Counter, EchoCue
from envs.t_maze import TMaze
from rl import cores
from rl.agents import RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.training.run import checkpoint_path
from rl.training.trainer import Trainer

SMALL = partial(cores.gru, hidden_size=8)


class Failing(VectorWrapper):
    """Raises in one of its steps, counted from 1."""

    def __init__(self, envs, at, error=ZeroDivisionError):
        super().__init__(envs)
        self.at, self.error, self.steps, self.seeds = at, error, 0, []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)

    def step(self, actions):
        self.steps += 1
        if self.steps == self.at:
            raise self.error("in the simulator")
        return super().step(actions)


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer of a small agent: rollouts of 8 steps of each environment."""

    def make(envs, total_steps=1000, core=SMALL, **options):
        spaces = envs.single_observation_space, envs.single_action_space
        sizes = {"num_envs": 2, "num_steps": 8, "bptt": 4, "num_minibatches": 2, "epochs": 2}
        agent = RecurrentPPO(*spaces, 8, seed=0, core=core, **sizes, diagnostics_every=None)  # which unrolls, too
        return Trainer(agent, envs, tmp_path, total_steps, seed=3, **options)

    return make


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, GeneratorExit])
def test_what_was_learned_up_to_the_last_update_is_saved(make_trainer, notebook, kind):
    """Rollouts of 16 steps; the fault comes in step 21 of each environment, in the third."""
    straight = make_trainer(Counter(2), 32)
    straight.train(notebook)
    trainer = make_trainer(Failing(Counter(2), 21, kind))
    with pytest.raises(kind) as info:
        trainer.train(notebook)
    assert info.value.__notes__ == [f"saved up to step 32; go on with resume={trainer.run_dir}"]
    content = load_checkpoint(checkpoint_path(trainer.run_dir))
    assert content["agent"]["env_steps"] == 32 and content["envs"] is None and content["obs"] is None
    for name, value in straight.agent.network.state_dict().items():
        assert torch.equal(value, content["agent"]["network"][name])


def test_an_interrupt_that_an_environment_raises_itself_stops_the_run_and_loses_nothing(make_trainer, notebook):
    """It comes without our handlers where a simulator has put its own in their place."""
    straight = make_trainer(Counter(2), 32)
    straight.train(notebook)
    trainer = make_trainer(Failing(Counter(2), 21, KeyboardInterrupt))
    assert trainer.train(notebook) is False
    content = load_checkpoint(checkpoint_path(trainer.run_dir))
    assert (trainer.stopped_by, content["agent"]["env_steps"]) == (signal.SIGINT, 32)
    assert content["envs"] is None and content["obs"] is None
    for name, value in straight.agent.network.state_dict().items():
        assert torch.equal(value, content["agent"]["network"][name])


@pytest.mark.parametrize("place", [None, "cpu"], ids=["arrays", "tensors"])
def test_training_goes_on_after_a_fault_with_new_episodes(make_trainer, notebook, place):
    """In step 21 an action was left without its outcome; episodes of 30 steps, so all memories would have gone on."""
    envs = TMaze(2, 29, device=place)
    step, trainer = envs.step, make_trainer(envs, 32)

    def fail(actions):
        envs.step = step
        raise ZeroDivisionError("in the simulator")

    trainer.train(notebook)
    trainer.total_steps, envs.step = 64, fail
    with pytest.raises(ZeroDivisionError):
        trainer.train(notebook)
    learn, seen = trainer.agent.learn, []
    trainer.agent.learn = lambda obs: seen.append(trainer.agent.buffer.starts[0].tolist()) or learn(obs)
    assert trainer.train(notebook) is True
    assert seen[0] == [True, True] and trainer.agent.env_steps >= 64


class Asked:
    """Two shards: a signal comes to the other one first, and to this one while it saves."""

    index, size, told = 0, 2, False

    def gather(self, value):
        if isinstance(value, tuple) and len(value) == 2:  # the question whether to stop
            self.told = True
            return [value, (signal.SIGTERM, 0.0)]
        if self.told:
            signal.raise_signal(signal.SIGTERM)
        return [value, value]


def test_a_signal_that_came_to_another_shard_first_does_not_end_what_saves(make_trainer, notebook, usual_handlers):
    noted, _ = usual_handlers
    trainer = make_trainer(Counter(2), shards=Asked())
    assert trainer.train(notebook) is False
    assert trainer.stopped_by == signal.SIGTERM and trainer.saved_steps == 0
    assert noted == [signal.SIGTERM]  # of two while it saves: the second one acts as usual


def test_a_resumed_run_begins_new_episodes_on_other_seeds(make_trainer, notebook, caplog):
    caplog.set_level("INFO")
    with pytest.raises(ZeroDivisionError):
        make_trainer(Failing(Counter(2), 21)).train(notebook)
    seeds = []
    for _ in range(2):
        caplog.clear()
        second = make_trainer(Failing(Counter(2), 0), 32)
        second.resume()
        assert caplog.messages == ["environments begin new episodes on other seeds: they have no state to go on from"]
        second.total_steps = 33
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(second, "save", lambda metrics: None)
            second.train(notebook)
        assert second.agent.env_steps == 48
        seeds += second.envs.envs.seeds
    assert seeds[0] == seeds[1] != 3  # the same each time
    assert seeds[0] == int(np.random.SeedSequence([3, 32]).generate_state(1)[0]) >> 1


def test_before_the_first_update_there_is_nothing_to_save(make_trainer, notebook):
    trainer = make_trainer(Failing(Counter(2), 5))
    with pytest.raises(ZeroDivisionError) as info:
        trainer.train(notebook)
    assert not hasattr(info.value, "__notes__")
    assert not checkpoint_path(trainer.run_dir).exists()


def test_a_fault_in_an_evaluation_loses_nothing(make_trainer, notebook):
    """The training environments stand where the last update left them."""

    def evaluate():
        raise ZeroDivisionError

    trainer = make_trainer(EchoCue(2), evaluate=evaluate, evaluate_every=32)
    with pytest.raises(ZeroDivisionError) as info:
        trainer.train(notebook)
    assert info.value.__notes__ == [f"saved up to step 32; go on with resume={trainer.run_dir}"]
    assert load_checkpoint(checkpoint_path(trainer.run_dir))["envs"] is not None


class Moody(torch.nn.Module):
    """A core of the user that fails in the second minibatch of the third update."""

    def __init__(self, input_size):
        super().__init__()
        self.inner, self.calls = cores.gru(input_size, hidden_size=8), 0
        self.output_size = self.inner.output_size
        self.initial_state, self.step = self.inner.initial_state, self.inner.step

    def unroll(self, x, state, starts):
        self.calls += 1
        if self.calls == 2 * 4 + 2:
            raise KeyError("mood")
        return self.inner.unroll(x, state, starts)


def test_a_fault_in_the_midst_of_an_update_leaves_nothing_of_it(make_trainer, notebook):
    """Two updates of four minibatches each were whole; of the third one minibatch was learned."""
    straight = make_trainer(Counter(2), 32, Moody)
    straight.train(notebook)
    trainer = make_trainer(Counter(2), core=Moody)
    with pytest.raises(KeyError) as info:
        trainer.train(notebook)
    assert info.value.__notes__[0].startswith("saved up to step 32; ")
    state = load_checkpoint(checkpoint_path(trainer.run_dir))["agent"]
    for name, value in straight.agent.network.state_dict().items():
        assert torch.equal(value, state["network"][name])


def test_a_failure_of_the_saving_does_not_hide_the_fault(make_trainer, notebook, monkeypatch):
    trainer = make_trainer(Failing(Counter(2), 21))

    def save(metrics, of_all=True):
        raise OSError("no space left on device")

    monkeypatch.setattr(trainer, "save", save)
    with pytest.raises(ZeroDivisionError) as info:
        trainer.train(notebook)
    assert info.value.__notes__ == ["nothing could be saved: no space left on device"]


def test_a_step_that_hangs_ends_the_run(make_trainer, notebook):
    class Hanging(Failing):
        def step(self, actions):
            if self.steps == 20:
                while True:
                    pass
            return super().step(actions)

    trainer = make_trainer(Hanging(Counter(2), 0), env_timeout=0.3)
    with pytest.raises(TimeoutError, match=r"longer than env_timeout=0.3 s") as info:
        trainer.train(notebook)
    assert info.value.__notes__ == [f"saved up to step 32; go on with resume={trainer.run_dir}"]

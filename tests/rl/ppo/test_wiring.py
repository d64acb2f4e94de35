"""Whole calls of ``agent.learn`` beside a slow float64 update written from the equations."""

import copy
import math
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_flatten

from rl import cores
from rl.agents import RecurrentPPO
from rl.networks.diagnostics import NAMES
from rl.ppo import PPO
from tests.rl.ppo.reference import Reference, Rollout

TOLERANCE = 1e-6  # of the largest weight; seen: 2e-7, float32 against float64
ACTIONS = {
    "discrete": (spaces.Discrete(4), [4]),
    "multi_discrete": (spaces.MultiDiscrete([3, 2]), [3, 2]),
    "box": (spaces.Box(-np.inf, np.inf, (2,)), None),
}
OPTIONS = {
    "epochs": 2,
    "num_minibatches": 2,
    "bptt": 4,
    "burn_in": 0,
    "refresh_states": False,
    "gamma": 0.9,
    "gae_lambda": 0.8,
    "clip": 0.1,
    "clip_schedule": "constant",
    "clip_final": None,
    "value_clip": None,
    "ratio": "joint",
    "value_coef": 0.7,
    "entropy_coef": 0.03,
    "entropy_coef_schedule": "constant",
    "entropy_coef_final": None,
    "teacher_kl": 0.0,
    "teacher_kl_schedule": "constant",
    "teacher_kl_final": None,
    "recall_coef": 0.0,
    "normalise_advantages": True,
    "target_kl": None,
    "learning_rate": 0.01,
    "learning_rate_schedule": "constant",
    "learning_rate_final": None,
    "learning_rate_warmup": 0.0,
    "learning_rate_min": 1e-5,
    "learning_rate_max": 1e-2,
    "desired_kl": 0.01,
    "max_grad_norm": 0.3,
}


class Environments:
    """B environments of random observations, rewards and ends, which an agent plays.

    Args:
        num_envs: B; None for the single form.
        hide: the first branch of some actions is not executed.
        late_resets: each step after an end is ignored, as where environments take a step to reset themselves.
        seed: of everything.
    """

    def __init__(self, num_envs, hide, late_resets, seed):
        self.rng, self.single, self.num_envs = np.random.default_rng(seed), num_envs is None, num_envs or 1
        self.hide, self.late_resets = hide, late_resets
        self.obs, self.starts = self.draw(), np.ones(self.num_envs, bool)

    def draw(self):
        return self.rng.normal(size=(self.num_envs, 3)).astype(np.float32)

    def shown(self):
        return self.obs[0] if self.single else self.obs

    def play(self, agent, steps):
        """Play ``steps`` steps; return what the agent saw and did."""
        rows, ignored = [], np.zeros(self.num_envs, bool)
        for _ in range(steps):
            agent.act(self.shown())
            action = agent.pending_action
            hidden = np.zeros((self.num_envs, len(agent.network.head.branches)), bool)
            hidden[:, 0] = self.hide and self.rng.random() < 0.4
            rewards = self.rng.normal(size=self.num_envs).astype(np.float32)
            terminated, truncated = (self.rng.random((2, self.num_envs)) < [[0.12], [0.2]]) & ~ignored
            outcome = rewards, terminated, truncated, self.draw(), ignored
            agent.observe(*(part[0] for part in outcome) if self.single else outcome)
            if hidden.any():
                agent.buffer.hide_branch(0)
            rows.append((self.obs, self.starts, action, hidden, *outcome))
            self.obs, self.starts = self.draw(), terminated | truncated | ignored
            ignored = (terminated | truncated) & self.late_resets
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
        *columns, ignored = (column if column.dtype == torch.bool else column.double() for column in columns)
        if not ignored.any():
            return Rollout(*columns, torch.from_numpy(self.obs).double())
        # of each environment the steps that count, as many as of the one with fewest
        rows = range(self.num_envs)
        counted = [torch.nonzero(~ignored[:, b]).squeeze(1) for b in rows]
        size = min(len(steps) for steps in counted)
        kept = torch.stack([steps[:size] for steps in counted], dim=1)
        followed = [columns[0][counted[b][size], b] if len(counted[b]) > size else self.obs[b] for b in rows]
        return Rollout(
            *(column[kept, torch.arange(self.num_envs)] for column in columns),
            torch.stack([torch.as_tensor(obs).double() for obs in followed]),
        )


class Pair:
    """An agent and its reference after some updates from the same play."""

    def __init__(self, agent, reference, environments, updates, steps):
        self.agent, self.reference = agent, reference
        self.before = self.weights
        for _ in range(updates):
            rollout, progress = environments.play(agent, steps), agent.progress
            self.loss = agent.learn(environments.shown())
            self.metrics = reference.learn(rollout, progress)

    @property
    def weights(self):
        return [weight.detach().double() for weight in self.agent.network.parameters()]

    def distance(self, others):
        """The largest difference of the agent's weights from ``others``, as a share of the largest weight."""
        pairs = list(zip(self.weights, others, strict=True))
        return (max((a - b).abs().max() for a, b in pairs) / max(b.abs().max() for _, b in pairs)).item()


@pytest.fixture
def assert_same_leaves():
    """Two trees of dicts and lists are bit by bit the same."""

    def compare(one, other):
        leaves, structure = tree_flatten(one)
        others, theirs = tree_flatten(other)
        assert structure == theirs
        for a, b in zip(leaves, others, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return compare


@pytest.fixture
def make_pair(randomise, tmp_path):
    def make(
        updates=2,
        core="gru",
        layers=1,
        action="multi_discrete",
        num_envs=3,
        num_steps=8,
        steps=None,
        hide=False,
        late_resets=False,
        seed=0,
        bound=9.0,
        agent_options=None,
        kind=RecurrentPPO,
        **options,
    ):
        space, sizes = ACTIONS[action]
        options, agent_options, envs = OPTIONS | options, agent_options or {}, num_envs or 1
        agent = kind(
            spaces.Box(-bound, bound, (3,)),
            space,
            6,
            seed=seed,
            core=partial(getattr(cores, core), hidden_size=5, num_layers=layers),
            num_envs=num_envs,
            num_steps=num_steps,
            total_steps=envs * num_steps * 5 // 2,  # the second update begins at 0.4
            **agent_options,
            **options,
        )
        teacher = None
        if options["teacher_kl"]:
            randomise(agent.network, seed + 1)
            agent.save(tmp_path / "teacher.pt")
            agent.load_network(tmp_path / "teacher.pt")
            teacher = {name: weight.detach().clone() for name, weight in agent.network.named_parameters()}
        randomise(agent.network, seed)
        shuffle = torch.Generator()
        shuffle.set_state(agent.shuffle.get_state())
        reference = Reference(
            dict(agent.network.named_parameters()),
            options,
            shuffle,
            envs,
            sizes,
            feed_previous=agent_options.get("previous_action_reward", False),
            scale_returns=agent_options.get("normalise_returns", False),
            teacher=teacher,
        )
        return Pair(agent, reference, Environments(num_envs, hide, late_resets, seed), updates, steps or num_steps)

    return make


SEPARATE = {"agent_options": {"separate_critic": True}}
LAYERS = {"separate_critic": True, "head_layers": [7, 6], "value_head_layers": [5], "head_activation": "relu"}
BURN_IN = {"core": "lstm", "burn_in": 3, "bptt": 3, "num_steps": 9, "num_minibatches": 3}
CASES = {
    "gru": {"core": "gru", "action": "discrete", "epochs": 3, "value_clip": 0.1},
    "lstm of two layers": {"core": "lstm", "layers": 2, "action": "box", "max_grad_norm": 1e9},
    "no layer in front": {"bound": 1.0},  # which the random observations break, but not by so much as to be scaled
    "no layer in front of a separate critic": {"bound": 1.0, "core": "lstm"} | SEPARATE,
    "layers behind the memory": {"agent_options": {"head_layers": [7, 6], "head_activation": "relu"}},
    "layers behind two memories": {"core": "lstm", "agent_options": LAYERS},
    "a critic of another kind": {"agent_options": LAYERS | {"critic_core": partial(cores.rnn, hidden_size=5)}},
    "hidden branches": {"hide": True, "epochs": 3},
    "hidden branches per head": {"hide": True, "ratio": "per_head", "value_clip": 0.1},
    "burn-in of a separate critic": BURN_IN | SEPARATE,
    "burn-in shorter than its stride": {"burn_in": 2, "agent_options": {"state_stride": 2}},
    "refreshed states of a separate critic": {"refresh_states": True, "epochs": 3, "bptt": 2} | SEPARATE,
    "a whole rollout": {"bptt": None, "core": "lstm", "num_minibatches": 1},
    "previous action and reward": {"agent_options": {"previous_action_reward": True}, "hide": True},
    "previous action and reward of a box": {"agent_options": {"previous_action_reward": True}, "action": "box"},
    "scaled returns": {"agent_options": {"normalise_returns": True}, "updates": 3},
    "teacher": {"hide": True, "entropy_coef_schedule": "cosine", "entropy_coef_final": 0.2}
    | {"teacher_kl": 0.5, "teacher_kl_schedule": "linear", "teacher_kl_final": 0.1},
    "teacher of a box": {"teacher_kl": 0.5, "action": "box", "core": "lstm", "learning_rate_schedule": "linear"},
    "recall": {"recall_coef": 0.4, "bptt": 8, "num_minibatches": 1, "max_grad_norm": 1e9},
    "recall of what is fed as it is": {"recall_coef": 0.4, "bptt": 6, "num_steps": 12, "bound": 1.0, "core": "lstm"},
    "recall beside a separate critic": {"recall_coef": 0.4, "core": "lstm", "layers": 2} | SEPARATE,
    "everything falls": {
        "clip_schedule": "linear",
        "learning_rate_schedule": "linear",
        "entropy_coef_schedule": "linear",
        "entropy_coef_final": 0.3,
        "normalise_advantages": False,
    },
    "cosines": {"clip_schedule": "cosine", "learning_rate_schedule": "cosine", "learning_rate_warmup": 0.2},
    "late resets": {"late_resets": True, "num_steps": 12, "updates": 1},
    "one minibatch for each sequence": {"bptt": 4, "num_minibatches": 6, "num_envs": 3},
}
UNEVEN = {"num_envs": None, "num_steps": 11, "bptt": 4, "num_minibatches": 3}  # sequences of 3, 4 and 4 steps


@pytest.mark.parametrize("case", CASES)
def test_a_whole_update_is_that_of_the_equations(case, make_pair):
    pair = make_pair(**CASES[case])
    assert pair.distance(pair.reference.w.values()) <= TOLERANCE
    assert pair.distance(pair.before) > 0.01
    found = pair.agent.last_metrics
    assert {name: found[name] for name in pair.metrics} == pytest.approx(pair.metrics, rel=1e-4, abs=1e-5)
    assert found.keys() - {*NAMES} == pair.metrics.keys() | {"ratio_error"}
    assert pair.loss == found["loss"]


@pytest.mark.parametrize(("num_minibatches", "steps"), [(3, 11), (1, 11), (2, 13), (9, 14)])
def test_a_single_environment_may_stop_at_any_step(num_minibatches, steps, make_pair):
    pair = make_pair(**UNEVEN | {"num_minibatches": num_minibatches, "steps": steps})
    assert pair.distance(pair.reference.w.values()) <= TOLERANCE


def test_minibatches_of_different_sizes(make_pair):
    """Six sequences in four minibatches."""
    pair = make_pair(num_minibatches=4)
    assert pair.distance(pair.reference.w.values()) <= TOLERANCE


def test_a_target_kl_ends_the_update_early(make_pair):
    pair = make_pair(target_kl=0.002, epochs=4, updates=3)
    assert pair.distance(pair.reference.w.values()) <= TOLERANCE
    assert 3 < pair.reference.steps_taken < 3 * 4 * 2 - 4  # not only the last epoch of one update is cut short


def test_states_are_stored_at_every_stride(make_pair):
    """What an update computes is the same, so that only the memory shows it: 8 steps at a stride of 2."""
    pair = make_pair(updates=1, burn_in=2, agent_options={"state_stride": 2})
    assert [len(leaf) for leaf in pair.agent.buffer.state.values()] == [4]


def test_the_cases_reach_every_clip(make_pair):
    reached = make_pair(**CASES["gru"]).reference.reached
    assert reached == {"ratio above", "ratio below", "value held", "gradient scaled", "gradient sudden"}


ADAPTIVE = {"learning_rate_schedule": "adaptive"}
CHANGES = {  # what a hyperparameter becomes, and what else it takes to matter
    "epochs": (3, {}),
    "num_minibatches": (3, {}),
    "bptt": (8, {}),
    "burn_in": (2, {}),
    "refresh_states": (True, {}),
    "gamma": (0.8, {}),
    "gae_lambda": (0.9, {}),
    "clip": (0.05, {}),
    "clip_schedule": ("cosine", {"epochs": 3}),
    "clip_final": (0.5, {"epochs": 3, "clip_schedule": "linear"}),
    "value_clip": (0.05, {"epochs": 3}),
    "ratio": ("per_head", {}),
    "value_coef": (0.5, {}),
    "entropy_coef": (0.06, {}),
    "entropy_coef_schedule": ("linear", {}),
    "entropy_coef_final": (0.3, {"entropy_coef_schedule": "linear"}),
    "teacher_kl": (0.6, {"teacher_kl": 0.5}),
    "teacher_kl_schedule": ("linear", {"teacher_kl": 0.5}),
    "teacher_kl_final": (0.3, {"teacher_kl": 0.5, "teacher_kl_schedule": "linear"}),
    "recall_coef": (0.3, {"recall_coef": 0.1}),
    "normalise_advantages": (False, {}),
    "target_kl": (0.002, {}),
    "learning_rate": (0.009, {}),
    "learning_rate_schedule": ("cosine", {}),
    "learning_rate_final": (0.008, {"learning_rate_schedule": "linear"}),
    "learning_rate_warmup": (0.5, {}),
    "learning_rate_min": (0.009, ADAPTIVE | {"desired_kl": 1e-4}),
    "learning_rate_max": (0.02, ADAPTIVE | {"desired_kl": 1.0}),
    "desired_kl": (1e-4, ADAPTIVE | {"desired_kl": 1.0}),
    "max_grad_norm": (0.5, {}),
}
EPISODES = {}  # pairs that several hyperparameters are compared with, by what they take


@pytest.mark.parametrize("name", CHANGES)
def test_every_hyperparameter_changes_the_weights_as_it_should(name, make_pair):
    value, context = CHANGES[name]
    assert value != (OPTIONS | context)[name]
    key = tuple(context.items())
    before = EPISODES.get(key) or EPISODES.setdefault(key, make_pair(**context))
    after = make_pair(**context | {name: value})
    for pair in (before, after):
        assert pair.distance(pair.reference.w.values()) <= TOLERANCE
    assert after.distance(before.weights) > 100 * TOLERANCE


def test_no_hyperparameter_is_left_out():
    without = ("graphs", "recompute_parts")  # which change no number
    names = [field.name for field in fields(PPO) if field.name not in without]
    assert list(CHANGES) == names
    assert list(OPTIONS) == names


# ------------------------------------------------------------------------------------------ an update that breaks late


class Breaking(PPO):
    """Minibatch number ``at``, from 0, of every update has no number for its loss."""

    at = calls = None

    def update(self, *arguments):
        self.calls = 0
        return super().update(*arguments)

    def loss(self, *arguments):
        loss, metrics = super().loss(*arguments)
        self.calls += 1
        return loss * (math.nan if self.calls - 1 == self.at else 1.0), metrics


class BreakingAgent(RecurrentPPO):
    algorithm = Breaking


def snapshot(agent):
    """Weights, Adam's moments and step count, the scale of the returns: copies."""
    state = agent.state_dict()
    return copy.deepcopy({name: state[name] for name in ("network", "optimizer", "return_scale")})


@pytest.mark.parametrize("updates", [0, 2], ids=["the first update", "a later update"])
@pytest.mark.parametrize("broken", [0, 3], ids=["first minibatch", "last minibatch"])
def test_an_update_that_breaks_leaves_nothing_behind(updates, broken, make_pair, assert_same_leaves):
    pair = make_pair(updates=updates, kind=BreakingAgent, agent_options={"normalise_returns": True})
    agent, before, played = pair.agent, snapshot(pair.agent), pair.agent.env_steps
    agent.ppo.at = broken
    environments = Environments(3, False, False, 5)
    environments.play(agent, 8)
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.learn(environments.shown())
    assert agent.ppo.calls == 4
    assert_same_leaves(snapshot(agent), before)
    assert (agent.env_steps, agent.updates, agent.buffer.size) == (played, updates, 0)
    agent.ppo.at = None
    environments.play(agent, 8)
    agent.learn(environments.shown())  # it goes on with the next rollout
    assert agent.updates == updates + 1


def test_what_an_update_changes_is_seen(make_pair, assert_same_leaves):
    """Or the test above could not fail."""
    before, after = (
        snapshot(make_pair(updates=updates, agent_options={"normalise_returns": True}).agent) for updates in (2, 3)
    )
    for name in before:
        with pytest.raises(AssertionError):
            assert_same_leaves(before[name], after[name])

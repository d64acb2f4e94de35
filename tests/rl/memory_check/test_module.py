"""``rl.check_memory_of_module``: sound modules pass, each planted fault is found, what does not fit is said."""

import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import rl
from rl.memory_check.module import find_batch_axes, read_observations

BOX = spaces.Box(-1.0, 1.0, (3,))


class Net(nn.Module):
    """An LSTM whose state is ``(h, c)``, each ``[1, B, 8]``, between two linear layers."""

    def __init__(self):
        super().__init__()
        self.encoder, self.lstm, self.head = nn.Linear(3, 8), nn.LSTM(8, 8), nn.Linear(8, 4)

    def initial_state(self, rows):
        return torch.zeros(1, rows, 8), torch.zeros(1, rows, 8)

    def clear(self, state, start):
        return tuple(torch.where(start.view(1, -1, 1), 0.0, leaf) for leaf in state)

    def forward(self, obs, state, start):
        output, state = self.lstm(self.encoder(obs).unsqueeze(0), self.clear(state, start))
        return self.head(output[0]), state

    def unroll(self, obs, state, start):
        outputs = []
        for t in range(len(start)):
            output, state = self(obs[t], state, start[t])
            outputs.append(output)
        return torch.stack(outputs), state


class Gru(nn.Module):
    """A state ``{"memory": [B, 8]}``, an observation that is a dict, a start that is a number, two outputs."""

    def __init__(self):
        super().__init__()
        self.cell, self.logits, self.value = nn.GRUCell(5, 8), nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, obs, state, start):
        inputs = torch.cat([obs["place"], nn.functional.one_hot(obs["mark"], 2)], dim=1)
        memory = self.cell(inputs, state["memory"] * (1.0 - start).unsqueeze(1))
        return (self.logits(memory), self.value(memory).squeeze(1)), {"memory": memory}


class Token(nn.Module):
    """It reads whole numbers."""

    def __init__(self):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(4, 8), nn.GRUCell(8, 8)

    def initial_state(self, rows):
        return torch.zeros(rows, 8)

    def forward(self, obs, state, start):
        state = self.cell(self.embedding(obs), state.masked_fill(start.unsqueeze(1), 0.0))
        return state, state


class NeverCleared(Net):
    def clear(self, state, start):
        return state


class ClearedLate(Net):
    def initial_state(self, rows):
        return *super().initial_state(rows), torch.zeros(rows, dtype=torch.bool)

    def forward(self, obs, state, start):
        output, after = super().forward(obs, state[:2], state[2])
        return output, (*after, start)


class BatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(self.encoder, nn.BatchNorm1d(8))


class AttendsToOthers(Net):
    def forward(self, obs, state, start):
        output, state = super().forward(obs, state, start)
        return torch.softmax(output @ output.T, 1) @ output, state


class BlindMemory(Net):
    """The output has what is seen now, the memory has nothing of it."""

    def forward(self, obs, state, start):
        output, state = super().forward(torch.zeros_like(obs), state, start)
        return output + obs.sum(1, keepdim=True), state


class Detached(Net):
    def forward(self, obs, state, start):
        return super().forward(obs, tuple(leaf.detach() for leaf in state), start)


class UnrollForgetsStarts(Net):
    def unroll(self, obs, state, start):
        return super().unroll(obs, state, torch.zeros_like(start))


FAULTS = {
    NeverCleared: ("nothing_crosses_a_start", "so the memory is not cleared"),
    ClearedLate: ("nothing_crosses_a_start", "for 1 step(s), so the memory is cleared too late"),
    BatchNorm: ("environments_do_not_mix", "another episode in one of them"),
    AttendsToOthers: ("environments_do_not_mix", "another episode in one of them"),
    BlindMemory: ("gradient_reaches_back", "what was seen then changes nothing now"),
    Detached: ("gradient_reaches_back", "though what was seen then counts"),
}


def judge(model, observations=BOX, *args, **options):
    torch.manual_seed(0)
    model = model() if isinstance(model, type) else model
    return {verdict.check: verdict for verdict in rl.check_memory_of_module(model, observations, *args, **options)}


def failing(verdicts):
    return {name for name, verdict in verdicts.items() if verdict.passed is False}


def test_an_lstm_passes():
    net = Net()
    verdicts = judge(net, unroll=net.unroll, bptt=8)
    assert failing(verdicts) == set()
    passed = {name for name, verdict in verdicts.items() if verdict.passed}
    assert passed >= {"model_fits", "unroll_equals_step", "nothing_crosses_a_start", "environments_do_not_mix"}
    assert verdicts["gradient_reaches_back"].passed  # as far as bptt
    expected = "the state is 2 tensor(s) of 16 numbers a row, the batch on axis 1, 1; an output has 4 numbers"
    assert verdicts["model_fits"].finding == expected


def test_a_sequence_may_have_the_batch_in_front():
    net = Net()

    def unroll(obs, state, start):
        assert obs.shape[2:] == (3,) and start.shape == obs.shape[:2]
        outputs, after = net.unroll(obs.transpose(0, 1), state, start.t())
        return outputs.transpose(0, 1), after

    verdicts = judge(net, unroll=unroll, batch_first=True)
    assert failing(verdicts) == set() and verdicts["unroll_equals_step"].passed


def test_dicts_and_starts_that_are_numbers_pass():
    space = spaces.Dict(place=BOX, mark=spaces.Discrete(2))
    start = lambda rows: {"memory": torch.zeros(rows, 8)}  # noqa: E731
    verdicts = judge(Gru, space, start, start_dtype=torch.float32)
    assert failing(verdicts) == set()
    assert verdicts["model_fits"].numbers == {"batch_axes": [0], "state": 8, "output": 5}
    assert verdicts["unroll_equals_step"].passed is None  # there is none


def test_real_observations_stand_in_for_a_space():
    assert failing(judge(Net, np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))) == set()


def test_whole_numbers_have_no_gradient():
    verdicts = judge(Token, spaces.Discrete(4))
    assert failing(verdicts) == set()
    assert verdicts["nothing_crosses_a_start"].passed and verdicts["gradient_reaches_back"].passed is None


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_faulty_module(kind):
    check, words = FAULTS[kind]
    verdicts = judge(kind)
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice


def test_a_sequence_that_forgets_its_starts():
    net = UnrollForgetsStarts()
    assert failing(judge(net, unroll=net.unroll)) == {"unroll_equals_step", "nothing_crosses_a_start"}


def test_batch_norm_mixes_nothing_in_the_mode_for_evaluation():
    assert failing(judge(BatchNorm().eval())) == set()


def test_everything_stays_as_it_is():
    """Moments of a batch norm, the generators of the process and of the space."""
    model, space = BatchNorm(), spaces.Box(-1.0, 1.0, (3,), seed=5)
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    torch.manual_seed(1)
    np.random.seed(1)
    rl.check_memory_of_module(model, space)
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    drawn = torch.rand(1), np.random.rand(), space.sample()
    torch.manual_seed(1)
    np.random.seed(1)
    assert (drawn[0], drawn[1]) == (torch.rand(1), np.random.rand())
    assert (drawn[2] == spaces.Box(-1.0, 1.0, (3,), seed=5).sample()).all()


def returning(change):
    """A module whose result is changed."""

    class Other(Net):
        def forward(self, obs, state, start):
            return change(*super().forward(obs, state, start))

    return Other


class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Noisy(Net):
    def forward(self, obs, state, start):
        return super().forward(nn.functional.dropout(obs), state, start)


class OfTwoSizes(Net):
    def initial_state(self, rows):
        return torch.zeros(1, 8), torch.zeros(1, 8)


WRONG = [
    (lambda: 3, {}, "model=3: it must be callable as model"),
    (lambda: nn.Linear(3, 3), {}, "initial_state=None: it must be a function of the batch size"),
    (OfTwoSizes, {}, r"initial_state: 0 is \[1, 8\] for 2 rows and \[1, 8\] for 3: one axis must be the batch"),
    (Net, {"initial_state": lambda rows: [None]}, r"state=None at 0: it must be a tensor"),
    (Net, {"start_dtype": torch.float32}, r"start \[5\] torch.float32\) must work, but raises RuntimeError: "),
    (returning(lambda output, state: output), {}, r"returns \[5, 4\]: it must return \(output, state\)"),
    (returning(lambda output, state: (output, state[0])), {}, r"returns a state \[1, 5, 8\]: it must have the form"),
    (returning(lambda output, state: (output.sum(), state)), {}, r"returns an output \[\]: it must begin with \[5\]"),
    (returning(lambda output, state: (output * torch.nan, state)), {}, "its output must be numbers"),
    (Noisy, {}, r"it must give the same output for the same inputs; dropout is off after eval\(\)"),
    (Locked, {}, "model=Locked: it must be one that can be copied"),
    (Net, {"observations": spaces.Text(3)}, "they must be Box, Discrete, MultiBinary or MultiDiscrete, or a Dict"),
    (Net, {"observations": torch.zeros(1, 3)}, "observations of {'obs': 1} rows: they must be at least 2"),
    (Net, {"observations": {"obs": [1.0, 2.0]}}, "obs is list: it must be a tensor, an array or a space"),
    (Net, {"observations": {}}, "they must be at least 2"),
]


@pytest.mark.parametrize(("model", "options", "words"), WRONG, ids=[words[:30] for _, _, words in WRONG])
def test_what_does_not_fit_is_said(model, options, words):
    with pytest.raises(ValueError, match=words):
        rl.check_memory_of_module(model(), **{"observations": BOX} | options)


def test_the_axis_of_the_batch_must_be_clear():
    two, three = ({"both": torch.zeros(rows, rows)} for rows in (2, 3))
    with pytest.raises(ValueError, match=r"both is \[2, 2\] for 2 rows and \[3, 3\] for 3"):
        find_batch_axes(two, three)
    with pytest.raises(ValueError, match="its parts must be the same for every batch"):
        find_batch_axes(two, {})
    assert find_batch_axes({"one": torch.zeros(7, 2)}, {"one": torch.zeros(7, 3)}) == {"one": 1}


def test_samples_of_a_space_have_its_leaves():
    inner = spaces.Dict(a=spaces.Box(0, 1, (2,), np.float64), b=spaces.MultiBinary(4))
    samples = read_observations(inner, 0, None)
    assert {name: (leaf.dtype, *leaf.shape) for name, leaf in samples.items()} == {
        "a": (torch.float32, 256, 2),
        "b": (torch.int8, 256, 4),
    }
    assert isinstance(inner, gymnasium.Space) and [*read_observations(BOX, 0, None)] == ["obs"]

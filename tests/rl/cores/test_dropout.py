import copy
from functools import partial

import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.dropout import draw_first_count, drop_units, initial_counts, refuse_dropout
from rl.cores.stack import Stack

STACKS = "rnn", "gru", "mingru", "lstm"


class Identity(nn.Module):
    """A layer that passes its input on, so that the output of a stack shows the masks themselves."""

    leaves = ("h",)

    def step(self, x, state):
        return (x,)

    def unroll(self, x, state, starts):
        return x, (x[-1],)


@pytest.fixture
def make_stack():
    def make(seed=0, num_layers=2, width=64, dropout=0.25):
        torch.manual_seed(seed)
        return Stack([Identity() for _ in range(num_layers)], width, dropout)

    return make


@pytest.fixture
def masks(make_stack):
    """The product of the masks of ``num_layers - 1`` layers, times their scale: ``[T, B, H]``."""

    def draw(steps=200, batch=4, **options):
        stack = make_stack(**options)
        starts = torch.zeros(steps, batch, dtype=torch.bool)
        return stack.unroll(torch.ones(steps, batch, stack.output_size), stack.initial_state(batch), starts)[0]

    return draw


# --------------------------------------------------------------------------------------------------- what a mask is


def test_the_asked_share_is_dropped_and_the_rest_scaled(masks):
    y = masks(dropout=0.25)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # 51200 units: the standard error of the share is sqrt(0.25 * 0.75 / 51200) = 0.0019
    assert abs((y == 0).float().mean().item() - 0.25) < 4 * 0.0019
    # and for each of the 64 units 800 draws: sqrt(0.25 * 0.75 / 800) = 0.0153
    assert ((y == 0).float().mean((0, 1)) - 0.25).abs().max() < 5 * 0.0153


def test_every_step_memory_and_layer_has_a_mask_of_its_own(masks):
    kept = (masks() > 0).flatten(0, 1)  # [800, 64]
    assert kept.unique(dim=0).shape[0] == 800
    # two layers of masks: a unit survives with probability 0.75 ** 2 = 0.5625, were they equal with 0.75;
    # standard error sqrt(0.5625 * 0.4375 / 51200) = 0.0022
    assert abs((masks(num_layers=3) > 0).float().mean().item() - 0.5625) < 4 * 0.0022


def test_masks_are_independent_of_those_of_neighbours(masks):
    centred = (masks() > 0).float() - 0.75
    variance = 0.75 * 0.25
    for one, other in (
        (centred[1:], centred[:-1]),  # the next step
        (centred[:, 1:], centred[:, :-1]),  # the next memory
        (centred[..., 1:], centred[..., :-1]),  # the next unit
        (centred[1:, ..., :-1], centred[:-1, ..., 1:]),  # the next step of the unit before
    ):
        correlation = (one * other).mean().item() / variance
        assert abs(correlation) < 4 / one.numel() ** 0.5


def test_masks_of_two_seeds_are_independent(masks):
    one, other = ((masks(seed=seed) > 0).float() - 0.75 for seed in (0, 1))
    assert torch.equal(masks(seed=0) > 0, one > 0)  # the same seed, the same masks
    assert abs((one * other).mean().item() / (0.75 * 0.25)) < 4 / one.numel() ** 0.5


def test_a_sequence_counts_on_from_the_first_of_its_steps():
    counts = torch.tensor([[10], [1 << 50]])
    whole = drop_units(torch.ones(5, 2, 16), counts, 1, 0.5)
    for t in range(5):
        assert torch.equal(whole[t], drop_units(torch.ones(2, 16), counts + t, 1, 0.5))


def test_masks_come_from_splitmix64():
    # The first outputs of SplitMix64 from the seed 0; a mask takes the lowest 24 bits. At count 0 the keys are 0, 1, 2
    outputs = 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F
    for unit, output in enumerate(outputs, start=1):
        share = (output & 0xFFFFFF) / 2**24
        for probability, kept in (share, True), (share + 2**-24, False):
            y = drop_units(torch.ones(1, 4), torch.tensor([[0]]), 0, probability)
            assert (y[0, unit] > 0).item() == kept


def test_memories_begin_far_apart():
    assert initial_counts(7, 3).tolist() == [[7], [7 + 2**40], [7 + 2 * 2**40]]
    assert initial_counts(7, 3).dtype == torch.int64


# ------------------------------------------------------------------------------------------- where the count begins


def test_the_first_count_is_drawn_once_at_construction(make_stack):
    stack = make_stack(seed=0)
    first = stack.initial_state(2)["dropout_count"]
    torch.manual_seed(5)
    assert torch.equal(stack.initial_state(2)["dropout_count"], first)
    assert torch.equal(copy.deepcopy(stack).initial_state(2)["dropout_count"], first)
    assert not torch.equal(make_stack(seed=1).initial_state(2)["dropout_count"], first)
    assert len({draw_first_count() for _ in range(100)}) == 100
    assert all(0 <= draw_first_count() < 2**62 for _ in range(100))


def test_nothing_is_drawn_without_dropout(make_stack):
    make_stack(seed=0, dropout=0.0)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert make_stack(dropout=0.0).initial_state(2).keys() == {"h"}


def test_the_weights_do_not_depend_on_dropout():
    one, other = (
        (torch.manual_seed(0), cores.gru(4, hidden_size=4, num_layers=2, dropout=dropout))[1] for dropout in (0.0, 0.5)
    )
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


# -------------------------------------------------------------------------------------------- when the count advances


@pytest.mark.parametrize("training", [True, False])
def test_the_count_advances_in_training_mode_alone(make_stack, training):
    stack = make_stack().train(training)
    state, none = stack.initial_state(3), torch.zeros(5, 3, dtype=torch.bool)
    x = torch.ones(5, 3, 64)
    for (y, new), steps in ((stack.step(x[0], state, none[0]), 1), (stack.unroll(x, state, none), 5)):
        assert torch.equal(new["dropout_count"], state["dropout_count"] + (steps if training else 0))
        assert torch.equal(y, torch.ones_like(y)) == (not training)


def test_starts_do_not_reset_the_count(make_stack):
    stack = make_stack()
    x, starts = torch.ones(8, 3, 64), torch.zeros(8, 3, dtype=torch.bool)
    state = stack.initial_state(3)
    y, new = stack.unroll(x, state, starts)
    starts[4, 1] = True
    again, other = stack.unroll(x, state, starts)
    assert torch.equal(again, y)
    assert torch.equal(other["dropout_count"], new["dropout_count"])
    assert not torch.equal(y[4, 1], y[0, 1])
    assert torch.equal(stack.step(x[0], state, torch.ones(3, dtype=torch.bool))[0], y[0])


# -------------------------------------------------------------------------------------------------------- exact replay


@pytest.fixture
def play_and_replay():
    """The outputs of a rollout of a core, played step by step and then replayed in chunks of 4 in reverse order.

    ``between`` is called with the core, the number of the step and the state before it; it returns the state to go on
    with. What it does may not change what the rollout and its replay have in common.
    """

    def run(core, between=lambda core, t, state: state, T=16, B=3):
        generator = torch.Generator().manual_seed(0)
        x, starts = torch.randn(T, B, 5, generator=generator), torch.rand(T, B, generator=generator) < 0.2
        assert starts[4:12].any()
        state, stored, played = core.initial_state(B), [], []
        with torch.no_grad():
            for t in range(T):
                state = between(core, t, state)
                stored.append(state)
                y, state = core.step(x[t], state, starts[t])
                played.append(y)
            replayed = [
                core.unroll(x[begin : begin + 4], stored[begin], starts[begin : begin + 4])[0]
                for begin in reversed(range(0, T, 4))
            ]
        return torch.stack(played), torch.cat(replayed[::-1])

    return run


@pytest.fixture
def make_dropping_core(randomise):
    def make(name, seed=0, dropout=0.5):
        torch.manual_seed(seed)
        return randomise(getattr(cores, name)(5, hidden_size=16, num_layers=3, dropout=dropout))

    return make


@pytest.mark.parametrize("name", STACKS)
def test_a_rollout_is_replayed_exactly_across_starts(name, make_dropping_core, play_and_replay, assert_close):
    played, replayed = play_and_replay(make_dropping_core(name))
    assert_close(replayed, played, 1e-6)
    other, _ = play_and_replay(make_dropping_core(name, seed=1))  # the same weights and inputs, other masks
    assert (other - played).abs().max() > 0.01


def _evaluate_once(core, t, state, at):
    """A step in evaluation mode in the middle of a chunk, whose memory is kept: it stands where it was but for h."""
    if t != at:
        return state
    core.eval()
    _, after = core.step(torch.zeros(3, 5), state, None)
    core.train()
    return {name: leaf if name != "dropout_count" else after[name] for name, leaf in state.items()}


@pytest.mark.parametrize("at", [0, 6])
def test_a_rollout_is_replayed_exactly_across_a_step_of_evaluation(
    at, make_dropping_core, play_and_replay, assert_close
):
    played, replayed = play_and_replay(make_dropping_core("gru"), partial(_evaluate_once, at=at))
    assert_close(replayed, played, 1e-6)
    undisturbed, _ = play_and_replay(make_dropping_core("gru"))
    assert torch.equal(played, undisturbed)


def test_dropout_is_refused_by_name():
    refuse_dropout("mlp", 0.0)
    with pytest.raises(ValueError, match=r"dropout=0\.1: it must be 0, the mlp core has no dropout"):
        refuse_dropout("mlp", 0.1)

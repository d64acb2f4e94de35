"""The model over every core, its cost in bits, sampling."""

import math
from functools import partial
from itertools import islice

import pytest
import torch

from experiments.char_lm.model import SequenceModel, measure_bits, sample, train_step
from experiments.char_lm.text import cut_streams, cut_streams_forever, draw_windows_forever
from rl import cores

V = 7


@pytest.fixture
def make_model(randomise):
    def make(core="gru", num_symbols=V, hidden_size=8):
        return randomise(SequenceModel(num_symbols, partial(getattr(cores, core), hidden_size=hidden_size), 5))

    return make


@pytest.fixture
def text():
    return torch.randint(V, (501,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("carry", [True, False])
def test_zero_weights_cost_the_logarithm_of_the_alphabet(make_model, text, carry):
    model = make_model()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert measure_bits(model, text, 4, 10, carry) == pytest.approx(math.log2(V), rel=1e-6)


def test_fixed_frequencies_cost_their_cross_entropy(make_model):
    """Probabilities 1/2, 1/4, 1/4 whatever came before; 12 targets, of which 6, 4 and 2: (6 + 2 * 4 + 2 * 2) / 12."""
    model = make_model(num_symbols=3)
    model.head.weight.data.zero_()
    model.head.bias.data = torch.tensor([0.5, 0.25, 0.25]).log()
    text = torch.tensor([2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2])
    assert measure_bits(model, text, 3, 2) == pytest.approx(18 / 12, rel=1e-6)


def test_the_state_is_carried_through_a_text_of_any_blocks(make_model, text):
    """One stream costs the same in blocks of any length as at once; from zero in every block it does not."""
    model = make_model()
    state, starts = model.initial_state(1), torch.zeros(500, 1, dtype=torch.bool)
    logits, _ = model.unroll(text[:-1].unsqueeze(1), state, starts)
    whole = torch.nn.functional.cross_entropy(logits[:, 0], text[1:]).item() / math.log(2.0)
    for length in (7, 100, 500):
        assert measure_bits(model, text, 1, length) == pytest.approx(whole, rel=1e-5)
    assert abs(measure_bits(model, text, 1, 7, carry=False) - whole) > 1e-3


def test_a_short_text_is_measured_in_fewer_streams(make_model, text):
    """Of 21 symbols, 4 streams of 10 would be short ones: two are taken, as if two had been asked for."""
    model = make_model()
    assert measure_bits(model, text[:21], 4, 10) == measure_bits(model, text[:21], 2, 10)
    assert math.isfinite(measure_bits(model, text[:2], 4, 10))
    with pytest.raises(ValueError, match="1 symbols has none"):
        measure_bits(model, text[:1], 4, 10)


def test_measuring_leaves_dropout_as_it_was(randomise, text):
    """It acts in training only."""
    model = randomise(SequenceModel(V, partial(cores.gru, hidden_size=8, num_layers=2, dropout=0.5), 5))
    whole = randomise(SequenceModel(V, partial(cores.gru, hidden_size=8, num_layers=2), 5))
    assert measure_bits(model, text, 4, 10) == measure_bits(whole, text, 4, 10)
    sample(model, text[:1], 2, 1.0)
    assert model.training and model.core.training


@pytest.mark.parametrize("core", cores.__all__)
def test_the_loss_falls(core):
    """A cycle of four symbols is certain after one of them, for a core without memory too."""
    text = torch.arange(400) % 4
    torch.manual_seed(0)
    model = SequenceModel(4, partial(getattr(cores, core), hidden_size=16), 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    state, losses = model.initial_state(4), []
    for block in islice(cut_streams_forever(text, 4, 16), 30):
        state, bits, norm = train_step(model, optimizer, block, state, 1.0)
        losses.append(bits)
        assert math.isfinite(norm) and not any(leaf.requires_grad for leaf in state.values())
    assert losses[0] > 1.5 and losses[-1] < 0.2
    assert measure_bits(model, text, 4, 16) < 0.2


def test_only_a_carried_state_can_know_what_lies_before_the_block():
    """Every fourth symbol is a 1 and a block has two: without a state it cannot be foreseen. Streams of 301 symbols,
    so that each has another phase."""
    text = (torch.arange(4 * 301 + 1) % 4 == 3).long()

    def learn(blocks):
        torch.manual_seed(0)
        model = SequenceModel(2, partial(cores.gru, hidden_size=16), 8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        state = model.initial_state(4)
        for block in islice(blocks, 150):
            state, _, _ = train_step(model, optimizer, block, state, 1.0)
        return model

    carried = learn(cut_streams_forever(text, 4, 2))
    fresh = learn(draw_windows_forever(text, 4, 2, torch.Generator().manual_seed(0)))
    assert measure_bits(carried, text, 4, 2) < 0.1
    assert measure_bits(fresh, text, 4, 2, carry=False) > 0.4


def test_a_loss_that_is_not_finite_ends_training(make_model, text):
    model = make_model()
    model.head.bias.data[0] = math.nan
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with pytest.raises(ArithmeticError, match="lower the learning rate"):
        train_step(model, optimizer, next(cut_streams(text, 4, 8)), model.initial_state(4), 1.0)


def test_the_gradient_is_clipped(make_model, text):
    """Plain gradient descent at rate 1 moves the weights by the clipped norm; what is returned is the norm before."""
    model = make_model()
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    _, _, norm = train_step(model, optimizer, next(cut_streams(text, 4, 8)), model.initial_state(4), 1e-3)
    moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert norm > 0.01 and moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("core", cores.__all__)
def test_greedy_sampling_is_the_argmax_of_unroll(core, make_model):
    """Every symbol sampled through ``step`` is the likeliest one after ``unroll`` over all that came before."""
    model, seen = make_model(core, num_symbols=20, hidden_size=16), set()
    model.embedding.weight.data.mul_(5.0)  # let the input decide, not the biases
    model.head.bias.data.zero_()
    for prompt in torch.randint(20, (5, 12), generator=torch.Generator().manual_seed(0)):
        said = sample(model, prompt, 15, 0.0)
        assert said.shape == (15,)
        whole = torch.cat([prompt, said])
        starts = torch.zeros(len(whole) - 1, 1, dtype=torch.bool)
        with torch.no_grad():
            logits, _ = model.unroll(whole[:-1].unsqueeze(1), model.initial_state(1), starts)
        assert logits[len(prompt) - 1 :, 0].argmax(-1).equal(said)
        seen |= set(said.tolist())
    assert len(seen) > 1


def test_sampling_follows_the_probabilities(make_model):
    """Weights 1, 2, 4, sharpened by temperature 1/2 to 1, 4, 16; the same seed repeats, another does not."""
    model = make_model(num_symbols=3)
    model.head.weight.data.zero_()
    model.head.bias.data = torch.tensor([1.0, 2.0, 4.0]).log()

    def draw(temperature, length=1000, seed=0):
        return sample(model, torch.tensor([0]), length, temperature, torch.Generator().manual_seed(seed))

    for temperature, weights in ((1.0, [1, 2, 4]), (0.5, [1, 4, 16])):
        shares = draw(temperature).bincount(minlength=3) / 1000
        assert shares.tolist() == pytest.approx([weight / sum(weights) for weight in weights], abs=0.04)
    assert draw(1.0, 50).equal(draw(1.0, 50)) and not draw(1.0, 50).equal(draw(1.0, 50, seed=1))


def test_what_cannot_be_sampled(make_model):
    model, prompt = make_model(), torch.tensor([0])
    with pytest.raises(ValueError, match="prompt is empty"):
        sample(model, prompt[:0], 5, 1.0)
    with pytest.raises(ValueError, match="temperature=-1"):
        sample(model, prompt, 5, -1.0)
    assert sample(model, prompt, 0, 1.0).shape == (0,)

"""The equations of implicit quantile networks by hand and beside slow references, and the update around them."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from experiments.benchmark.host_reads import HostReads
from rl import cores
from rl.flat_adam import flat_adam
from rl.iqn.losses import n_step_returns, quantile_huber_loss, squash, unsquash
from rl.iqn.sequence_replay import SequenceReplay
from rl.iqn.update import IQN, follow
from rl.networks import QuantileNetwork
from rl.networks.frozen import frozen_copy
from rl.spaces import leaf_spaces

every_core = pytest.mark.parametrize("core", cores.__all__)

# ------------------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize(
    ("quantile", "tau", "target", "loss", "slope"),
    [  # kappa = 2; loss = |tau - [d < 0]| L(d) / 2, slope = -|tau - [d < 0]| L'(d) / 2 with d = target - quantile
        (1.0, 0.25, 2.0, 0.0625, -0.125),  # d = 1: 1/4 * 1/2 / 2, 1/4 * 1 / 2
        (2.0, 0.25, 1.0, 0.1875, 0.375),  # d = -1: 3/4 * 1/2 / 2
        (0.0, 0.75, 5.0, 3.0, -0.75),  # d = 5: 3/4 * 2 * (5 - 1) / 2, 3/4 * 2 / 2
        (5.0, 0.75, 0.0, 1.0, 0.25),  # d = -5: 1/4 * 8 / 2
        (1.0, 0.5, 1.0, 0.0, 0.0),
    ],
)
def test_the_loss_of_one_pair(quantile, tau, target, loss, slope):
    numbers = (torch.tensor([[number]]) for number in (quantile, tau, target))
    got, derivative = quantile_huber_loss(*numbers, 2.0, torch.ones(1))
    assert got.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope)


def test_the_loss_sums_over_quantiles_averages_over_targets_and_weighs_steps():
    """kappa = 1. Step 0: quantile 0 of tau 1/2 and targets 1, 2: 1/2 * 1/2 and 1/2 * 3/2, mean 1/2; quantile 1 of tau
    1/4: 0 and 1/4 * 1/2, mean 1/16. So 9/16, with weight 2; step 1 is the same without weight."""
    quantiles, taus = torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[0.5, 0.25]] * 2)
    targets, weights = torch.tensor([[1.0, 2.0]] * 2), torch.tensor([2.0, 0.0])
    loss, slopes = quantile_huber_loss(quantiles, taus, targets, 1.0, weights)
    assert loss.item() == pytest.approx(2 * 9 / 16)
    # 2 * -1/2 * (1 + 1) / 2 and 2 * -1/4 * (0 + 1) / 2
    assert slopes.tolist() == [[-1.0, -0.25], [0.0, 0.0]]


@pytest.mark.parametrize("kappa", [0.3, 1.0])
def test_the_loss_and_its_gradient_are_those_of_a_slow_reference(kappa):
    """Every pair by itself with the absolute values of the paper, in float64, differentiated by autograd."""
    generator = torch.Generator().manual_seed(0)
    quantiles = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    taus = torch.rand(3, 5, generator=generator, dtype=torch.float64)  # the same for all steps of a sequence
    weights = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t, n, i, j in np.ndindex(4, 3, 5, 6):
        error = targets[t, n, j] - quantiles[t, n, i]
        size = error.abs()
        huber = size**2 / 2 if size <= kappa else kappa * (size - kappa / 2)
        side = 1 - taus[n, i] if error < 0 else taus[n, i]
        total = total + weights[t, n] * side * huber / kappa / 6
    total.backward()
    loss, slopes = quantile_huber_loss(quantiles.detach(), taus, targets, kappa, weights)
    torch.testing.assert_close(loss, total.detach())
    torch.testing.assert_close(slopes, quantiles.grad)


def test_minimising_the_loss_finds_quantiles():
    """Of the numbers 0 ... 100 the quantiles 0.1, 0.5 and 0.9 are 10, 50 and 90; kappa is small beside them."""
    quantiles, targets = torch.zeros(1, 3), torch.arange(101.0).view(1, -1)
    for _ in range(600):
        _, slopes = quantile_huber_loss(quantiles, torch.tensor([[0.1, 0.5, 0.9]]), targets, 0.1, torch.ones(1))
        quantiles -= 2.0 * slopes
    torch.testing.assert_close(quantiles, torch.tensor([[10.0, 50.0, 90.0]]), atol=1.0, rtol=0)


def test_rescaling_and_back():
    x = torch.tensor([-300.0, -3.0, -1e-3, 0.0, 0.5, 8.0, 1000.0], dtype=torch.float64)
    assert squash(torch.tensor([3.0, -8.0])).tolist() == pytest.approx([1.003, -2.008])
    torch.testing.assert_close(unsquash(squash(x)), x)
    torch.testing.assert_close(unsquash(squash(x.float())), x.float(), rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- looking ahead


@pytest.mark.parametrize(
    ("terminated", "final", "returns", "factors", "rows"),
    [  # rewards 1 2 3 4 5, n = 3, gamma = 1/2; the first two of five rows are asked for
        ((), (), [2.75, 4.5], [0.125, 0.125], [3, 4]),  # 1 + 2/2 + 3/4; 2 + 3/2 + 4/4
        ((1,), (), [2.0, 2.0], [0.0, 0.0], [2, 2]),  # 1 + 2/2; 2
        ((2,), (), [2.75, 3.5], [0.0, 0.0], [3, 3]),
        ((0,), (), [1.0, 4.5], [0.0, 0.125], [1, 4]),
        ((), (2,), [2.0, 2.0], [0.25, 0.5], [2, 2]),  # row 2 is only seen: 1 + 2/2, then V(o_2) / 4
        ((), (1,), [1.0, 4.5], [0.5, 0.125], [1, 4]),  # row 1 itself does not count
        ((), (3,), [2.75, 3.5], [0.125, 0.25], [3, 3]),  # just within reach: nothing changes for row 0
        ((3,), (3,), [2.75, 3.5], [0.125, 0.25], [3, 3]),  # a final row cannot terminate anything
    ],
)
def test_looking_ahead_by_hand(terminated, final, returns, factors, rows):
    flags = torch.zeros(2, 5, 1, dtype=torch.bool)
    flags[0, list(terminated)] = True
    flags[1, list(final)] = True
    got = n_step_returns(torch.arange(1.0, 6.0).unsqueeze(1), *flags, 3, 0.5)
    assert got[0].flatten().tolist() == returns
    assert got[1].flatten().tolist() == factors
    assert got[2].flatten().tolist() == rows


# ------------------------------------------------------------------------------------------------------- a whole update

SMALL = {"batch_size": 20, "bptt": 5, "burn_in": 3, "n_step": 3, "gamma": 0.9, "num_quantiles": 4}
SPACE = spaces.Box(-1.0, 1.0, (3,))


@pytest.fixture
def make(randomise):
    """A network, its target with other weights, and a replay of random play with ends of every kind."""

    def build(core="gru", steps=40, seed=0, network_options=None, **options):
        iqn = IQN(**{**SMALL, **options})
        options = {"num_cosines": 8, "num_action_quantiles": 3} | (network_options or {})
        core = partial(getattr(cores, core), hidden_size=6)
        network = randomise(QuantileNetwork(leaf_spaces(SPACE), spaces.MultiDiscrete([2, 2]), core, 6, **options))
        target = randomise(frozen_copy(network), seed=1)
        random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        B, starts, state = 3, np.ones(3, dtype=bool), network.initial_state(3)
        replay = None
        for _ in range(steps):
            obs = {"obs": torch.randn(B, 3, generator=generator)}
            actions = torch.randint(2, (B, 2), generator=generator)
            if replay is None:
                replay = SequenceReplay(10_000, iqn.length, 2, obs, state, actions)
            replay.write_step(obs, state, starts, None, None, actions)
            with torch.no_grad():
                _, _, state = network.step(obs, state, torch.from_numpy(starts))
            terminated, known, unknown = random.random((3, B)) < 0.12
            truncated = (known | unknown) & ~terminated
            replay.finish_step(random.standard_normal(B).astype(np.float32), terminated, truncated, np.zeros(B, bool))
            rows = np.flatnonzero(truncated & known)
            if len(rows):
                after = {name: leaf[rows] for name, leaf in state.items()}
                replay.write_final(rows, {"obs": torch.randn(len(rows), 3, generator=generator)}, after)
            starts = terminated | truncated
        return iqn, network, target, replay

    return build


@pytest.fixture
def update():
    def run(parts, count=3, done=0, progress=0.0, optimizer=None):
        iqn, network, target, replay = parts
        draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
        optimizer = optimizer or flat_adam(network, iqn.learning_rate)
        return iqn.update(network, target, optimizer, replay, count, done, *draws, progress)

    return run


def one_episode_at_a_time(iqn, network, target, stretch, taus, target_taus):
    """Loss of a minibatch, row by row from the definition: one step of one network at a time."""
    M, N = stretch.starts.shape
    loss, counted = 0.0, 0
    for n in range(N):
        values, futures, thetas = [], [], []
        mine = theirs = {name: leaf[n : n + 1] for name, leaf in stretch.state.items()}
        for t in range(M):
            obs = {"obs": stretch.obs["obs"][t, n : n + 1]}
            start = stretch.starts[t, n : n + 1]
            with torch.set_grad_enabled(t >= iqn.burn_in):
                psi, mine = network.trunk.run("step", obs, mine, start)
            with torch.no_grad():
                behind, theirs = target.trunk.run("step", obs, theirs, start)
                values.append(network.action_values(psi, obs)[0])
                futures.append(target.quantiles(behind[0], target_taus[n]))  # [N', A]
            thetas.append(network.quantiles(psi[0], taus[n]))
        for t in range(iqn.burn_in, iqn.burn_in + iqn.bptt):
            if stretch.final[t, n]:
                continue
            goal, discount, at = 0.0, 1.0, t
            while True:
                goal = goal + discount * stretch.rewards[at, n]
                discount *= iqn.gamma
                if stretch.terminated[at, n]:
                    discount = 0.0
                    break
                at += 1
                if stretch.final[at, n] or at == t + iqn.n_step:
                    break
            goal = goal + discount * futures[at][:, values[at].argmax()]  # [N']
            code = 2 * stretch.actions[t, n, 0] + stretch.actions[t, n, 1]
            for tau, theta in zip(taus[n], thetas[t][:, code], strict=True):
                error = goal - theta
                huber = torch.where(error.abs() <= 1, error**2 / 2, error.abs() - 0.5)
                loss = loss + ((tau - (error < 0).float()).abs() * huber).double().mean()
            counted += 1
    return loss / counted


@pytest.mark.parametrize(("core", "burn_in"), [("gru", 0), *((core, 3) for core in cores.__all__)])
def test_an_update_learns_from_what_the_definition_says(make, core, burn_in, assert_close):
    """Loss and gradient of a minibatch of 24 sequences, with ends of every kind inside."""
    iqn, network, target, replay = make(core, burn_in=burn_in)
    slots = np.flatnonzero(replay.ready())[::2][:24]
    stretch, steps = replay._read(slots, torch.ones(len(slots))), slice(burn_in, burn_in + 5)
    assert all(flags[steps].sum() > 5 for flags in (stretch.final, stretch.terminated, stretch.starts))
    quantiles, slopes, (loss, q_mean), _ = iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    target_taus = torch.rand(len(slots), iqn.num_target_quantiles, generator=generator)
    taus = torch.rand(len(slots), iqn.num_quantiles, generator=generator)
    expected = one_episode_at_a_time(iqn, network, target, stretch, taus, target_taus)
    assert_close(loss.double(), expected.detach(), 1e-5)
    parameters = list(network.parameters())
    got = torch.autograd.grad(quantiles, parameters, slopes)
    wanted = torch.autograd.grad(expected, parameters)
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs, 1e-4)
    assert max(gradient.abs().max() for gradient in wanted) > 0.1
    trained = ~stretch.final[steps]
    torch.testing.assert_close(q_mean, quantiles.detach().mean(-1)[trained].mean())


def test_rescaled_values_are_learned_on_their_scale(make):
    """With one target quantile of value v and reward r the goal is h(r + gamma^m h^-1(v)): seen in the loss alone."""
    losses = []
    for rescaling in (False, True):
        iqn, network, target, replay = make(value_rescaling=rescaling)
        slots = np.flatnonzero(replay.ready())
        stretch = replay._read(slots, torch.ones(len(slots)))
        stretch.rewards = stretch.rewards * 100
        _, _, (loss, _), _ = iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))
        losses.append(loss.item())
    assert losses[1] < 0.2 * losses[0]


def test_rewards_are_scaled(make):
    """A tenth of ten times the rewards: the same loss."""
    losses = []
    for scale, times in ((1.0, 1.0), (0.1, 10.0), (0.1, 1.0)):
        iqn, network, target, replay = make(reward_scale=scale)
        replay.rewards *= np.float32(times)
        stretch = replay._read(np.flatnonzero(replay.ready()), torch.ones(int(replay.ready().sum())))
        losses.append(iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))[2][0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)


def test_weights_of_sequences_weigh_their_losses(make):
    """Twice the weight of one of two sequences shifts the mean to (2 a + b) / 2."""
    iqn, network, target, replay = make()
    slots = np.flatnonzero(replay.ready())[[3, 8]]
    losses = []
    for weights in ([1.0, 0.0], [0.0, 1.0], [2.0, 1.0]):
        stretch = replay._read(slots, torch.tensor(weights))
        losses.append(iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))[2][0])
    torch.testing.assert_close(losses[2], 2 * losses[0] + losses[1])


def test_the_error_of_a_sequence_mixes_its_largest_with_its_mean(make):
    """Errors 1, 3 and 2 of trained steps, 9 of one that is not: 0.9 * 3 + 0.1 * 2."""
    iqn, *_ = make(priority_peak=0.9)
    trained = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    error = iqn._priority(torch.tensor([[1.0], [3.0], [9.0], [2.0]]) * trained, trained)
    assert error.tolist() == pytest.approx([2.9])


def test_priorities_become_the_errors_of_what_was_drawn(make, update):
    iqn, network, target, replay = parts = make(priority_exponent=0.6)
    (stretch,) = replay.minibatches(1, iqn.sequences, torch.Generator().manual_seed(0), 0.6, 0.6)
    *_, errors = iqn._losses(network, target, stretch, torch.Generator().manual_seed(1))
    update(parts, count=1)
    assert len(set(stretch.slots)) > 1
    assert replay.priorities[stretch.slots].tolist() == pytest.approx(errors.tolist())
    assert np.isin(np.flatnonzero(replay.ready() & (replay.priorities != 1.0)), stretch.slots).all()
    plain = make()
    update(plain, count=1)
    assert (plain[3].priorities[plain[3].ready()] == 1.0).all()


def test_nothing_is_learned_through_the_burn_in(make):
    """Its observations matter, but no gradient reaches them."""
    iqn, network, target, replay = make(burn_in=3)
    slots = np.flatnonzero(replay.ready())
    stretch = replay._read(slots, torch.ones(len(slots)))
    stretch.starts[:] = False
    stretch.obs["obs"].requires_grad_()
    quantiles, slopes, _, _ = iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(quantiles, stretch.obs["obs"], slopes)
    assert gradient[:3].abs().max() == 0
    assert gradient[3].abs().max() > 0
    with torch.no_grad():
        stretch.obs["obs"][:3] += 1.0
    moved, _, _, _ = iqn._losses(network, target, stretch, torch.Generator().manual_seed(0))
    assert (moved - quantiles).abs().max() > 1e-3


def test_the_target_network_moves_at_its_interval(make, update):
    """Interval 3, 5 minibatches done before: of the next 7 the first, fourth and seventh end at a multiple of 3."""
    iqn, network, target, replay = make(target_interval=3, target_share=0.5, learning_rate=1e-12)
    start = deepcopy(target.state_dict())
    for count, done, halvings in ((7, 5, 3), (1, 0, 0), (1, 2, 1)):
        target.load_state_dict(start)
        update((iqn, network, target, replay), count, done)
        for name, weights in network.named_parameters():
            expected = weights + (start[name] - weights) * 0.5**halvings
            torch.testing.assert_close(target.state_dict()[name], expected.detach())


def test_a_full_share_copies_exactly(make):
    _, network, target, _ = make()
    follow(target, network, 1.0)
    for mine, theirs in zip(target.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
        assert mine.data_ptr() != theirs.data_ptr()


def test_the_learning_rate_is_annealed(make, update):
    for anneal, expected in ((False, 0.01), (True, 0.0025)):
        parts = make(learning_rate=0.01, anneal_learning_rate=anneal)
        optimizer = flat_adam(parts[1], 0.01)
        update(parts, progress=0.75, optimizer=optimizer)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_minibatches_lower_the_loss(make, update):
    parts = make(learning_rate=0.01, target_interval=1000)
    optimizer = flat_adam(parts[1], 0.01)
    first = update(parts, 5, optimizer=optimizer)["loss"]
    update(parts, 100, optimizer=optimizer)
    assert update(parts, 5, optimizer=optimizer)["loss"] < 0.5 * first


@pytest.mark.parametrize("where", ["obs", "rewards"])
def test_a_bad_number_leaves_the_weights_as_they_were(make, update, where):
    parts = make()
    _, network, _, replay = parts
    if where == "obs":
        replay.obs["obs"][:] = float("nan")
    else:
        replay.rewards[:] = np.inf
    before = deepcopy(network.state_dict())
    with pytest.raises(FloatingPointError, match="not finite"):
        update(parts)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@every_core
@pytest.mark.parametrize(
    ("options", "network_options"),
    [({}, {}), ({"priority_exponent": 0.6, "value_rescaling": True}, {"normalise": True, "dueling": True})],
    ids=["plain", "everything"],
)
def test_an_update_reads_the_device_once(make, update, core, options, network_options):
    parts = make(core, network_options=network_options, target_interval=2, **options)
    _, network, target, replay = parts
    sources = [*network.parameters(), *network.buffers(), *target.parameters(), *target.buffers(), replay.actions]
    optimizer = flat_adam(network, 1e-3)
    with HostReads([*sources, *replay.obs.values(), *replay.state.values()]) as mode:
        update(parts, 5, optimizer=optimizer)
    assert mode.reads == ["tolist"]  # metrics and priorities, at the end


@pytest.mark.parametrize(
    "option",
    [
        {"batch_size": 0}, {"bptt": 0}, {"burn_in": -1}, {"capacity": 0}, {"learning_starts": -1},
        {"replay_ratio": 0.0}, {"gamma": 1.1}, {"n_step": 0}, {"num_quantiles": 0}, {"num_target_quantiles": 0},
        {"kappa": 0.0}, {"reward_scale": 0.0}, {"target_interval": 0}, {"target_share": 1.5},
        {"priority_exponent": -1.0},
        {"priority_correction": 2.0}, {"priority_peak": -0.1}, {"learning_rate": 0.0}, {"max_grad_norm": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        IQN(**option)


def test_minibatches_hold_whole_sequences():
    """512 / 32 = 16 sequences; 100 / 32 is nearest to 3; one at least."""
    assert [IQN(batch_size=size, bptt=32).sequences for size in (512, 100, 1)] == [16, 3, 1]
    assert IQN(bptt=32, burn_in=8, n_step=3).length == 43

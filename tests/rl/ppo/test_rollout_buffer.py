import numpy as np
import pytest
import torch

from rl import cores
from rl.networks.heads import NOT_EXECUTED
from rl.ppo.options import choose_stride
from rl.ppo.rollout_buffer import RolloutBuffer

B = 3


def numbers(minibatch):
    """The steps ``t * B + b`` of a minibatch, ``[L, N]``."""
    return minibatch.old_values.long()


# ---------------------------------------------------------------------------------------- every transition exactly once


@pytest.mark.parametrize("bptt", [None, 1, 8, 5, 7, 23, 100])  # the first three divide the 24 steps
@pytest.mark.parametrize("num_minibatches", [1, 4, 5])
def test_every_transition_comes_exactly_once(bptt, num_minibatches, numbered, epoch):
    minibatches = epoch(numbered(24), num_minibatches, bptt)
    seen = torch.cat([numbers(mb).flatten() for mb, _ in minibatches])
    assert sorted(seen.tolist()) == list(range(24 * B))


@pytest.mark.parametrize(
    ("bptt", "chunks"),
    [
        (8, [(0, 8), (8, 8), (16, 8)]),
        (None, [(0, 24)]),
        (24, [(0, 24)]),
        (40, [(0, 24)]),
        # 24 steps need four pieces of at most 7: 6 each; five of at most 5: 4.8 each, so they begin at 0 4 9 14 19
        (7, [(0, 6), (6, 6), (12, 6), (18, 6)]),
        (5, [(0, 4), (4, 5), (9, 5), (14, 5), (19, 5)]),
    ],
)
def test_chunks(bptt, chunks, numbered):
    assert numbered(24)[0].chunks(bptt) == chunks


def test_steps_of_a_sequence_follow_each_other(numbered, epoch):
    for minibatch, _ in epoch(numbered(24), 4, 8):
        steps = numbers(minibatch)
        assert steps.shape[0] == 8
        assert (steps[1:] - steps[:-1] == B).all()  # the same environment, one step on
        assert (steps[0] // B % 8 == 0).all()


@pytest.mark.parametrize(
    ("size", "bptt", "num_minibatches"),
    [(24, 8, 3), (24, 8, 4), (24, 8, 5), (24, 8, 9), (24, 8, 20), (24, None, 2), (16, 4, 8), (16, 4, 5)],
)
def test_number_of_minibatches(size, bptt, num_minibatches, numbered, epoch):
    minibatches = epoch(numbered(size), num_minibatches, bptt)
    sequences = size // (bptt or size) * B
    assert len(minibatches) == min(num_minibatches, sequences)
    sizes = [numbers(mb).shape[1] for mb, _ in minibatches]
    assert sum(sizes) == sequences


@pytest.mark.parametrize(
    ("num_minibatches", "expected"),
    [  # 24 steps in pieces of 4 5 5 5 5: 3 sequences of 4 steps, 12 of 5, which share the minibatches as 1 to 4
        (1, [(4, 3), (5, 12)]),  # one at least of each length
        (5, [(4, 3)] + [(5, 3)] * 4),
        (7, [(4, 3)] + [(5, 2)] * 6),  # 1.4 and 5.6
        (10, [(4, 2), (4, 1)] + [(5, 2)] * 4 + [(5, 1)] * 4),
        (100, [(4, 1)] * 3 + [(5, 1)] * 12),  # no more than there are sequences
    ],
)
def test_minibatches_of_two_lengths(num_minibatches, expected, numbered, epoch):
    assert [numbers(mb).shape for mb, _ in epoch(numbered(24), num_minibatches, 5)] == expected


def test_order_is_drawn_anew_and_comes_from_the_generator(numbered, epoch):
    rollout, generator = numbered(24), torch.Generator().manual_seed(0)
    first, second = ([numbers(mb)[0].tolist() for mb, _ in epoch(rollout, 3, 4, seed=generator)] for _ in range(2))
    assert first != second
    assert [numbers(mb)[0].tolist() for mb, _ in epoch(rollout, 3, 4, seed=0)] == first
    order = [step for minibatch in first for step in minibatch]
    assert order != sorted(order)  # shuffled at all


def test_sequences_of_one_environment_part_ways(numbered, epoch):
    """Pairs of chunk and environment are shuffled, not chunks or environments alone."""
    minibatches = [numbers(mb)[0] for mb, _ in epoch(numbered(24), 3, 4)]
    assert any(len((steps % B).unique()) > 1 for steps in minibatches)
    assert any(len((steps // B).unique()) > 1 for steps in minibatches)


def test_sequences_with_as_many_starts_lie_together(numbered, epoch, device):
    if device.type != "cpu":
        pytest.skip("a GPU unrolls any starts together")
    minibatches = [mb.starts.sum(0).tolist() for mb, _ in epoch(numbered(60), 3, 10)]  # 1 or 2 starts in each sequence
    assert all(starts == sorted(starts) for starts in minibatches)
    assert any(len(set(starts)) > 1 for starts in minibatches)


def test_starts_do_not_decide_which_minibatch_a_sequence_comes_into(numbered, epoch):
    """Or the first minibatch would always be that of the longest episodes."""
    buffer, targets = numbered(60)
    before = [set(numbers(mb)[0].tolist()) for mb, _ in epoch((buffer, targets), 3, 10)]
    buffer.starts[:] = False
    assert [set(numbers(mb)[0].tolist()) for mb, _ in epoch((buffer, targets), 3, 10)] == before


# --------------------------------------------------------------------------------------------- everything in its place


@pytest.mark.parametrize(("bptt", "state_stride"), [(4, 1), (8, 8), (8, 4), (None, 5), (5, 1)])
@pytest.mark.parametrize("teacher", [False, True])
def test_everything_belongs_to_the_same_step(bptt, state_stride, teacher, numbered, epoch, device):
    for mb, warm_up in epoch(numbered(24, state_stride=state_stride, teacher=teacher), 4, bptt):
        steps, (L, N) = numbers(mb), mb.old_values.shape
        t, b = (steps // B).cpu(), (steps % B).cpu()
        assert warm_up is None
        assert torch.equal(mb.obs["x"], steps.unsqueeze(-1).expand(L, N, 2).float())
        assert torch.equal(mb.obs["image"], steps.view(L, N, 1, 1, 1).expand(L, N, 1, 2, 2).to(torch.uint8))
        assert torch.equal(mb.actions, steps.unsqueeze(-1))
        assert torch.equal(mb.old_log_probs, steps.unsqueeze(-1).float())
        assert torch.equal(mb.advantages, steps + 0.25)
        assert torch.equal(mb.returns, steps + 0.5)
        assert torch.equal(mb.starts.cpu(), t % (5 + b) == 0)
        taught = None if mb.teacher_params is None else mb.teacher_params.tolist()
        assert taught == (torch.stack([steps, -steps], -1).float().tolist() if teacher else None)
        before = (steps[0] // B + (steps[0] % B) / 10).view(N, 1, 1).expand(N, 1, 4)
        assert torch.equal(mb.state["h"], before)
        assert torch.equal(mb.state["c"], -before)
        assert torch.equal(mb.state["count"], steps[0].unsqueeze(-1))
        leaves = mb.obs["x"], mb.state["h"], mb.starts, mb.returns
        assert {leaf.device.type for leaf in leaves} == {device.type}


def test_dtypes_are_kept(numbered, epoch):
    buffer, targets = numbered(8)
    mb, _ = epoch((buffer, targets), 1, 4)[0]
    assert (buffer.obs["image"].dtype, mb.obs["image"].dtype) == (torch.uint8, torch.uint8)
    assert (buffer.state["count"].dtype, mb.state["count"].dtype) == (torch.int64, torch.int64)
    assert (mb.actions.dtype, mb.starts.dtype, mb.obs["x"].dtype) == (torch.int64, torch.bool, torch.float32)


def test_states_are_kept_at_every_stride_only(numbered):
    buffer, _ = numbered(24, state_stride=8)
    assert buffer.state["h"].shape == (3, B, 1, 4)
    assert buffer.state["h"][:, 0, 0, 0].tolist() == [0.0, 8.0, 16.0]
    assert numbered(24, state_stride=5)[0].state["h"].shape[0] == 5  # steps 0 5 10 15 20


def test_outcomes_are_stored(numbered):
    buffer, _ = numbered(6)
    assert buffer.rewards[:, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert buffer.terminated[:, 2].tolist() == [True, False, True, False, True, False]
    assert buffer.truncated[:, 0].tolist() == [True, False, False, True, False, False]
    assert (buffer.terminated.dtype, buffer.rewards.dtype) == (torch.bool, torch.float32)


# ------------------------------------------------------------------------------------------------------------- growth


@pytest.mark.parametrize("state_stride", [1, 3, 4])
def test_growth_keeps_the_content(state_stride, numbered, epoch):
    grown, targets = numbered(23, capacity=4, state_stride=state_stride)
    whole, _ = numbered(23, state_stride=state_stride)
    assert (grown.size, grown.capacity) == (23, 32)  # 4, 8, 16, 32
    for name in ("actions", "params", "values", "rewards", "starts", "terminated", "truncated", "ignored"):
        assert torch.equal(getattr(grown, name)[:23], getattr(whole, name))
    stored = -(-23 // state_stride)
    for group in ("obs", "state"):
        for name, leaf in getattr(whole, group).items():
            count = 23 if group == "obs" else stored
            assert torch.equal(getattr(grown, group)[name][:count], leaf[:count])
    seen = torch.cat([numbers(mb).flatten() for mb, _ in epoch((grown, targets), 4, 8 if state_stride == 1 else None)])
    assert sorted(seen.tolist()) == list(range(23 * B))


def test_sequences_that_would_begin_where_no_state_is_stored_are_refused(numbered):
    buffer, _ = numbered(20, state_stride=8)
    assert buffer.chunks(None) == [(0, 20)]
    with pytest.raises(ValueError, match="state_stride=8 does not fit a rollout of 20 steps"):
        buffer.chunks(8)  # 0, 6, 13


def test_a_rollout_that_is_forgotten_is_written_over_from_the_front(numbered):
    buffer, _ = numbered(6)
    buffer.size = 0
    assert buffer.capacity == 6
    example = {name: leaf[0] + 1 for name, leaf in buffer.obs.items()}
    state = {name: leaf[5] for name, leaf in buffer.state.items()}
    buffer.write_step(example, state, np.ones(B, bool), buffer.params[0], buffer.values[0], buffer.actions[0])
    assert buffer.size == 0  # it counts with its outcome
    buffer.finish_step(np.zeros(B, np.float32), *np.zeros((3, B), bool))
    assert buffer.size == 1
    assert torch.equal(buffer.obs["x"][0], example["x"])


# ---------------------------------------------------------------------------------------------- marks on what is stored


def test_a_branch_is_hidden_in_the_last_step(device):
    actions = torch.ones(B, 2, dtype=torch.int64, device=device)
    obs, nothing = {"x": torch.zeros(B, 1, device=device)}, torch.zeros(B, 5, device=device)
    buffer = RolloutBuffer(3, obs, {}, actions, nothing, device=device)
    for t in range(3):
        buffer.write_step(obs, {}, np.zeros(B, bool), nothing, nothing[:, 0], actions)
        buffer.finish_step(np.zeros(B, np.float32), *np.zeros((2, B), bool))
        if t == 1:
            buffer.hide_branch(0)
    assert buffer.actions[:, 1].tolist() == [[1, 1], [NOT_EXECUTED, 1], [1, 1]]
    assert (buffer.actions[1, :, 0] == NOT_EXECUTED).all()


def test_unfinished_episodes_are_truncated_after_the_last_step(numbered):
    buffer, _ = numbered(6, capacity=9)
    buffer.terminated[:], buffer.truncated[:] = False, False
    buffer.terminated[5, 0] = buffer.truncated[5, 1] = True
    buffer.truncate()
    assert buffer.truncated[5].tolist() == [False, True, True]  # the first ended by itself
    assert buffer.terminated[5].tolist() == [True, False, False]
    assert buffer.truncated.sum() == 2
    buffer.size = 0
    buffer.truncate()  # there is nothing to mark
    assert buffer.truncated.sum() == 2


def test_what_is_collected_is_shown_without_the_room_behind_it(numbered):
    buffer, _ = numbered(6, capacity=9)
    shown = buffer.observations()
    assert {name: leaf.shape for name, leaf in shown.items()} == {"x": (6, B, 2), "image": (6, B, 1, 2, 2)}
    assert torch.equal(shown["x"], buffer.obs["x"][:6])


def test_all_that_is_stored_is_listed(numbered):
    buffer, _ = numbered(6)
    listed = {leaf.data_ptr() for leaf in buffer.leaves()}
    groups = [*buffer.obs.values(), *buffer.state.values()]
    tensors = [value for value in vars(buffer).values() if isinstance(value, torch.Tensor)]
    assert listed == {leaf.data_ptr() for leaf in groups + tensors}
    assert len(listed) == 2 + 3 + 8


# ------------------------------------------------------------------------------------------------------ ignored steps


def test_ignored_steps_leave_no_gap(numbered, device):
    # row 0 loses steps 2 and 4, row 1 step 0, row 2 none: four of six steps can be kept of each
    buffer, _ = numbered(6, capacity=8, gaps={(2, 0), (4, 0), (0, 1)})
    remaining = torch.tensor([[0, 1, 0], [1, 2, 1], [3, 3, 2], [5, 4, 3]])  # the former step, [T, B]
    cut = torch.arange(6 * B, device=device).view(6, B) + 0.5
    assert buffer.whole_steps == 4
    last_values, cut = buffer.drop_ignored(4, torch.tensor([100.0, 101.0, 102.0], device=device), cut)
    step = remaining * B + torch.arange(B)
    before = remaining + torch.arange(B) / 10
    assert buffer.size == 4
    assert torch.equal(buffer.obs["x"][:4, :, 0].cpu(), step.float())
    assert torch.equal(buffer.obs["image"][:4, :, 0, 0, 0].cpu(), step.to(torch.uint8))
    assert torch.equal(buffer.state["h"][:4, :, 0, 0].cpu(), before)
    assert torch.equal(buffer.state["c"][:4, :, 0, 0].cpu(), -before)
    assert torch.equal(buffer.actions[:4, :, 0].cpu(), step)
    assert torch.equal(buffer.params[:4, :, 4].cpu(), step.float())
    assert torch.equal(buffer.values[:4].cpu(), step.float())
    assert torch.equal(buffer.rewards[:4], remaining.float())
    assert torch.equal(buffer.starts[:4], remaining % (5 + torch.arange(B)) == 0)
    assert torch.equal(buffer.terminated[:4], remaining % 2 == 0)
    assert torch.equal(buffer.truncated[:4], remaining % 3 == 0)
    assert not buffer.ignored[:4].any()
    assert torch.equal(cut.cpu(), step + 0.5)
    # row 0 ends where the rollout did; the first step that row 1 loses at the end is 5 (16), of row 2 it is 4 (14)
    assert last_values.tolist() == [100.0, 16.0, 14.0]


def test_without_ignored_steps_nothing_moves(numbered, device):
    buffer, _ = numbered(6, capacity=8)
    before = [leaf.clone() for leaf in buffer.leaves()]
    cut = torch.rand(6, B, 2, device=device)
    last_values, again = buffer.drop_ignored(
        buffer.whole_steps, torch.tensor([100.0, 101.0, 102.0], device=device), cut
    )
    assert buffer.size == 6
    assert last_values.tolist() == [100.0, 101.0, 102.0]
    assert torch.equal(again, cut)
    assert all(torch.equal(one, other) for one, other in zip(buffer.leaves(), before, strict=True))


@pytest.mark.parametrize("core", [cores.gru, cores.lstm, cores.attention, cores.mamba])
def test_states_between_those_stored_are_filled_in(core, make_network, collect, assert_close):
    network = make_network(core)
    (sparse, _), (every, _) = (collect(network, 22, state_stride=stride) for stride in (4, 1))
    sparse.size -= 1  # the last step is written and waits for its outcome
    sparse.store_every_state(network.step)
    assert sparse.stride == 1
    for name, leaf in every.state.items():
        assert_close(sparse.state[name][:22], leaf[:22], 1e-6)
    kept = {name: leaf.clone() for name, leaf in sparse.state.items()}
    sparse.store_every_state(None)  # there is nothing to do any more
    assert all(torch.equal(leaf, kept[name]) for name, leaf in sparse.state.items())


# ---------------------------------------------------------------------------------------------------------------- size


def test_what_a_rollout_takes(numbered):
    """Bytes of a step: x 8, image 4, h and c 16 each, count 8, actions 8, params 20, value, reward, flags 4."""
    buffer, _ = numbered(6)
    assert sum(leaf.numel() * leaf.element_size() for leaf in buffer.leaves()) == 6 * 3 * 92
    assert buffer.describe() == "rollout: 1.66 kB (params 360 bytes, state 'h' 288 bytes, state 'c' 288 bytes)"


def test_a_large_state_fits_when_it_is_stored_where_sequences_begin():
    """4,096 environments x 128 steps of Mamba 256 take less than 4 GB, though one state is 76 kB."""
    state = cores.mamba(64, hidden_size=256).initial_state(1)
    stride = choose_stride(None, 32, 0, True, state)
    many = {name: leaf.to("meta").expand(4096, *leaf.shape[1:]) for name, leaf in state.items()}
    row = torch.empty(4096, 4, device="meta")
    buffer = RolloutBuffer(128, {"obs": row}, many, row[:, :1].long(), row, stride, "meta")
    size = sum(leaf.numel() * leaf.element_size() for leaf in buffer.leaves())
    assert 0.5e9 < size < 4e9
    assert stride == 32


# ------------------------------------------------------------------------------------------------------------ burn-in


@pytest.mark.parametrize(("bptt", "burn_in", "state_stride"), [(8, 3, 1), (8, 8, 1), (8, 4, 4), (5, 2, 1)])
def test_the_warm_up_is_the_steps_before(bptt, burn_in, state_stride, numbered, epoch):
    opening = 0
    for mb, warm_up in epoch(numbered(24, state_stride=state_stride), 3, bptt, burn_in):
        first, (k, N) = numbers(mb)[0], warm_up.obs["x"].shape[:2]
        assert (k, N) == (burn_in, len(first))
        available = first >= B  # all but the chunk that opens the rollout
        assert torch.equal(warm_up.available, available)
        opening += (~available).sum().item()
        window = first - B * torch.arange(burn_in, 0, -1, device=first.device).unsqueeze(1)  # [k, N]
        window, t, b = window[:, available], first[available] // B - burn_in, first[available] % B
        assert torch.equal(warm_up.obs["x"][:, available, 0], window.float())
        assert torch.equal(warm_up.starts[:, available.cpu()], ((window // B) % (5 + window % B) == 0).cpu())
        assert torch.equal(warm_up.state["h"][available, 0, 0], t + b / 10)
        assert torch.equal(warm_up.state["count"][available, 0], t * B + b)
    assert opening == B


@pytest.mark.parametrize(("size", "bptt", "burn_in"), [(8, None, 10), (8, 16, 16), (9, 4, 4)])
def test_a_warm_up_longer_than_the_rollout_is_not_available(size, bptt, burn_in, numbered, epoch):
    for mb, warm_up in epoch(numbered(size), 2, bptt, burn_in):
        assert torch.equal(warm_up.available, numbers(mb)[0] // B >= burn_in)


# ------------------------------------------------------------------------------------------------------------ refresh


@pytest.mark.parametrize(
    ("core", "bptt", "state_stride", "separate_critic"),
    [(cores.gru, 8, 1, False), (cores.lstm, 8, 8, True), (cores.gru, 8, 4, True), (cores.lstm, 5, 1, False)],
)
def test_refresh_recomputes_the_states_at_chunk_starts(
    core, bptt, state_stride, separate_critic, make_network, collect, randomise, assert_close
):
    options = {"core_options": {"num_layers": 2, "dropout": 0.3}, "separate_critic": separate_critic}
    network = make_network(core, **options)
    buffer, _ = collect(network, 24, state_stride=state_stride)
    stored = {name: leaf.clone() for name, leaf in buffer.state.items()}
    randomise(network, seed=1)
    with torch.no_grad():
        buffer.refresh(network.unroll, bptt)
        state = {name: leaf[0] for name, leaf in stored.items()}
        begins = [begin for begin, _ in buffer.chunks(bptt)]
        for t in range(24):
            place = t // state_stride
            for name in state:
                if t in begins:
                    assert_close(buffer.state[name][place], state[name], 1e-5)
                    if t and stored[name].is_floating_point():
                        assert (buffer.state[name][place] - stored[name][place]).abs().max() > 0.01
                elif t % state_stride == 0:
                    assert torch.equal(buffer.state[name][place], stored[name][place])
            step = {name: leaf[t : t + 1] for name, leaf in buffer.obs.items()}
            *_, state = network.unroll(step, state, buffer.starts[t : t + 1])


def test_refresh_with_unchanged_weights_changes_nothing(make_network, collect, assert_close):
    network = make_network(cores.lstm)
    buffer, _ = collect(network, 24)
    stored = {name: leaf.clone() for name, leaf in buffer.state.items()}
    with torch.no_grad():
        buffer.refresh(network.unroll, 4)
    for name, leaf in buffer.state.items():
        assert_close(leaf, stored[name], 1e-6)


def test_refresh_stops_at_the_steps_collected(make_network, collect):
    network = make_network(cores.gru)
    buffer, _ = collect(network, 16)
    buffer.size = 8  # the rest is of an older rollout
    stored = {name: leaf.clone() for name, leaf in buffer.state.items()}
    with torch.no_grad():
        buffer.refresh(network.unroll, 4)
    assert all(torch.equal(leaf[8:], stored[name][8:]) for name, leaf in buffer.state.items())

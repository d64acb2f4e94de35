"""Each fault that a recurrent agent is known for, planted on purpose, fails the check that is for it, and no other."""

import pytest
import torch

from rl import cores
from rl.agents import RecurrentPPO
from rl.ppo import PPO
from rl.ppo.rollout_buffer import RolloutBuffer


class Core(torch.nn.Module):
    """A core around another one, in which a fault is planted; ``unroll`` is that of single steps."""

    def __init__(self, input_size, hidden_size, inner=cores.gru):
        super().__init__()
        self.inner = inner(input_size, hidden_size)
        self.output_size = self.inner.output_size

    def initial_state(self, batch_size, device=None):
        return self.inner.initial_state(batch_size, device)

    def step(self, x, state, starts):
        return self.inner.step(x, state, starts)

    def unroll(self, x, state, starts):
        outputs = []
        for t in range(len(x)):
            output, state = self.step(x[t], state, starts[t])
            outputs.append(output)
        return torch.stack(outputs), state


class NeverCleared(Core):
    def step(self, x, state, starts):
        return self.inner.step(x, state, None)


class ClearedLate(Core):
    """The start of a step clears the memory one step after it."""

    def initial_state(self, batch_size, device=None):
        return super().initial_state(batch_size, device) | {"late": torch.zeros(batch_size, 1)}

    def step(self, x, state, starts):
        late = state["late"][:, 0] > 0
        now = torch.zeros(len(x), dtype=torch.bool) if starts is None else starts
        output, after = self.inner.step(x, {name: state[name] for name in state if name != "late"}, late)
        return output, after | {"late": now.float().unsqueeze(1)}


class OnlyTheValueIsCleared(Core):
    """A memory that is cleared by subtracting what it holds: its value is 0, its gradient passes."""

    def step(self, x, state, starts):
        if starts is not None:
            leaks = {name: 0.5 * (leaf - leaf.detach()) for name, leaf in state.items()}
            cleared = starts[:, None, None]
            state = {name: torch.where(cleared, leaks[name], leaf) for name, leaf in state.items()}
        return self.inner.step(x, state, None)


class Detached(Core):
    """The seeds of this kind: every step is replayed alone, so no gradient passes from step to step."""

    def step(self, x, state, starts):
        return self.inner.step(x, {name: leaf.detach() for name, leaf in state.items()}, starts)


class CutAfterFour(Core):
    """A gradient that ends four steps before the last one, whatever the sequence has."""

    def unroll(self, x, state, starts):
        before, state = super().unroll(x[:-4], state, starts[:-4])
        outputs, state = super().unroll(x[-4:], {name: leaf.detach() for name, leaf in state.items()}, starts[-4:])
        return torch.cat([before, outputs]), state


class UnrollForgetsStarts(Core):
    def unroll(self, x, state, starts):
        return super().unroll(x, state, torch.zeros_like(starts))


class Mixed(Core):
    """The mean over the batch is taken away, as batch normalisation does."""

    def step(self, x, state, starts):
        return super().step(x - x.mean(0), state, starts)


class Swapped(PPO):
    """An LSTM is replayed from (c, h)."""

    def loss(self, network, mb, now, teacher=None):
        mb.state = {"h": mb.state["c"], "c": mb.state["h"]}
        return super().loss(network, mb, now, teacher)


class FromZero(PPO):
    def loss(self, network, mb, now, teacher=None):
        mb.state = {name: torch.zeros_like(leaf) for name, leaf in mb.state.items()}
        return super().loss(network, mb, now, teacher)


class AsksForGradients(PPO):
    """The state before a sequence is part of the graph."""

    def loss(self, network, mb, now, teacher=None):
        mb.state = {name: leaf.requires_grad_() for name, leaf in mb.state.items()}
        return super().loss(network, mb, now, teacher)


class FromTheReset(PPO):
    """V of what follows the reset stands for V of what closed a truncated episode."""

    def targets(self, buffer, head, final_values, last_values, *rest):
        following = torch.cat([buffer.values[1 : buffer.size], last_values.unsqueeze(0)])
        return super().targets(buffer, head, following, last_values, *rest)


class OtherLambda(PPO):
    def targets(self, *args):
        targets, metrics = super().targets(*args)
        targets.returns = targets.returns * 1.1
        return targets, metrics


def with_update(update):
    return type(f"With{update.__name__}", (RecurrentPPO,), {"algorithm": update})


class TruncationTerminates(RecurrentPPO):
    def observe(self, rewards, terminated, truncated=False, final_observation=None, ignored=False):
        super().observe(rewards, terminated | truncated, False, None, ignored)


class StartsComeLate(RecurrentPPO):
    """What ended is told to the memories, and stored, one step later."""

    def observe(self, *outcome):
        super().observe(*outcome)
        told = self.actor.starts
        self.actor.starts, self.waiting = getattr(self, "waiting", told & False), told


class StaleStatistics(RecurrentPPO):
    """The moments of observations change between acting and replay."""

    def learn(self, next_observation=None):
        self.network.update_moments(self.buffer.observations())
        return super().learn(next_observation)


CORES = {
    NeverCleared: ("nothing_crosses_a_start", "so the memory is not cleared"),
    ClearedLate: ("nothing_crosses_a_start", "for 1 step(s), so the memory is cleared too late"),
    OnlyTheValueIsCleared: ("nothing_crosses_a_start", "values do not cross a start, but a gradient does"),
    Detached: ("gradient_reaches_back", "no gradient reaches 1 step(s) back, though what was seen then counts"),
    CutAfterFour: ("gradient_reaches_back", "no gradient reaches 4 step(s) back, though what was seen then counts"),
}
AGENTS = {
    with_update(Swapped): ("replay_is_exact", "sequences begin from other states than those that the agent had"),
    with_update(FromZero): ("replay_is_exact", "sequences begin from a fresh state"),
    with_update(AsksForGradients): ("gradient_stops_at_bptt", "the state before them asks for a gradient"),
    with_update(FromTheReset): ("targets_are_right", "truncated episodes take V of the observation after the reset"),
    with_update(OtherLambda): ("targets_are_right", "returns or advantages are others"),
    TruncationTerminates: ("targets_are_right", "a truncation is taken for a termination"),
    StartsComeLate: ("starts_follow_ends", "each one a step late"),
    StaleStatistics: ("replay_is_exact", "the encoder makes other features of the same observations"),
}


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.__name__)
def test_a_faulty_memory(core, make_ppo, judge, failing):
    check, words = CORES[core]
    verdicts = judge(make_ppo(core=core))
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.__name__)
def test_a_faulty_agent(kind, make_ppo, judge, failing):
    check, words = AGENTS[kind]
    options = {"normalise_observations": True, "refresh_states": True, "target_kl": 1e-9}  # none ends a check early
    verdicts = judge(make_ppo(kind, **options))
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice


def test_the_same_memory_without_a_fault(make_ppo, judge, failing):
    """Or the tests above could fail for another reason."""
    assert failing(judge(make_ppo(core=Core, normalise_observations=True))) == set()


def test_starts_that_the_replay_alone_forgets(make_ppo, judge, failing):
    verdicts = judge(make_ppo(core=UnrollForgetsStarts))
    assert failing(verdicts) == {"unroll_equals_step", "nothing_crosses_a_start", "replay_is_exact"}


def test_environments_that_mix(make_ppo, judge, failing):
    """They meet others in a minibatch, and where episodes are cut, than they did when they were played."""
    verdicts = judge(make_ppo(core=Mixed))
    assert failing(verdicts) == {"environments_do_not_mix", "replay_is_exact", "targets_are_right"}


def shuffle_steps(monkeypatch):
    """Steps are shuffled inside sequences."""
    whole = RolloutBuffer.sequences

    def sequences(self, *args):
        for mb, warm_up in whole(self, *args):
            order = torch.randperm(len(mb.starts), generator=torch.Generator().manual_seed(0))
            mb.obs = {name: leaf[order] for name, leaf in mb.obs.items()}
            for name in ("starts", "actions", "old_log_probs", "old_values", "advantages", "returns"):
                setattr(mb, name, getattr(mb, name)[order])
            yield mb, warm_up

    monkeypatch.setattr(RolloutBuffer, "sequences", sequences)


def lose_a_minibatch(monkeypatch):
    whole = RolloutBuffer.sequences
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda self, *args: list(whole(self, *args))[1:])


def train_twice(monkeypatch):
    whole = RolloutBuffer.sequences
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda self, *args: [*whole(self, *args), *whole(self, *args)])


def shift_targets(monkeypatch):
    """Advantages are those of the step before."""
    whole = RolloutBuffer.sequences

    def sequences(self, targets, *args):
        targets.advantages = targets.advantages.roll(1, 0)
        return whole(self, targets, *args)

    monkeypatch.setattr(RolloutBuffer, "sequences", sequences)


def ignore_bptt(monkeypatch):
    monkeypatch.setattr(RolloutBuffer, "chunks", lambda self, bptt: [(0, self.size)])


def shift_states(monkeypatch):
    """The state of the step before is stored."""
    whole = RolloutBuffer._state_at
    monkeypatch.setattr(RolloutBuffer, "_state_at", lambda self, first, env: whole(self, (first - 1).clamp_min(0), env))


@pytest.mark.parametrize(
    ("plant", "check", "words"),
    [
        (shuffle_steps, "replay_is_exact", "sequences are not in the order of time"),
        (shift_states, "replay_is_exact", "sequences begin from other states"),
        (lose_a_minibatch, "every_step_is_trained_once", "of 128 steps 32 are left out"),
        (train_twice, "every_step_is_trained_once", "128 come more than once"),
        (shift_targets, "every_step_is_trained_once", "of 128 steps 128 are left out"),
        (ignore_bptt, "gradient_stops_at_bptt", "sequences have 32 steps, 8 are allowed"),
    ],
)
def test_a_faulty_rollout(plant, check, words, make_ppo, judge, failing, monkeypatch):
    plant(monkeypatch)
    verdicts = judge(make_ppo())
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice

"""Recurrent PPO: when it learns, from what, with which options, and what is left of an update that failed."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter, SpaceProbe
from rl.training.evaluation import evaluate
from rl.training.stepping import VectorEnvAdapter

OBS, FOUR = spaces.Box(-2.0, 2.0, (2,)), spaces.Discrete(4)


@pytest.fixture
def learned_state():
    """All that an update changes: weights, optimiser, scale of the returns and what the agent counts and reports."""

    def copy(agent):
        scale = agent.return_scale.state_dict() if agent.return_scale else {}
        parts = agent.network.state_dict(), agent.optimizer.state_dict()["state"], scale
        return deepcopy(parts), agent.updates, agent.env_steps, agent.last_metrics

    return copy


# ------------------------------------------------------------------------------------------------------- when it learns


def test_a_rollout_is_learned_from_when_it_is_long_enough_and_may_span_epochs(make_agent, play_turns):
    agent, sizes = make_agent((OBS, FOUR)), []
    for _ in range(6):
        agent.reset()
        play_turns(agent, 3)
        agent.reset()
        agent.learn()
        sizes.append((agent.rollout_size, agent.updates, agent.env_steps))
    assert sizes == [(3, 0, 0), (6, 0, 0), (0, 1, 9), (3, 1, 9), (6, 1, 9), (0, 2, 18)]


def test_each_pass_over_a_rollout_sees_each_transition_once(make_agent, play_turns):
    """Observations are random reals, so they name their step."""
    agent, seen = make_agent((OBS, FOUR), epochs=3), []
    loss = agent.ppo.loss

    def watched(network, mb, *rest):
        seen.extend(mb.obs["obs"].reshape(-1, 2).tolist())
        return loss(network, mb, *rest)

    agent.ppo.loss = watched
    play_turns(agent, 8)
    observed = sorted(agent.buffer.obs["obs"][:8, 0].tolist())
    agent.learn()
    assert len(seen) == 3 * 8
    for passed in range(3):
        assert sorted(seen[passed * 8 : (passed + 1) * 8]) == observed


def test_a_rollout_longer_than_asked_for_is_learned_from_whole(make_agent, play_turns, watch_updates):
    """Its buffer grows. Sequences of at most 4 steps, so of 4 and 3 here."""
    agent = make_agent((OBS, FOUR), epochs=1)
    updates = watch_updates(agent)
    play_turns(agent, 19, terminated=[6])
    agent.learn()
    assert updates[0]["rewards"] == [float(turn % 3) for turn in range(19)]
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert (agent.rollout_size, agent.env_steps) == (0, 19)


def test_there_is_no_rollout_before_the_first_step(make_agent, play_turns):
    agent = make_agent((OBS, FOUR), num_envs=2)
    assert agent.rollout_size == 0
    assert agent.learn() == 0.0
    agent.reset()
    play_turns(agent, 2)
    assert agent.rollout_size == 4


def test_a_rollout_of_one_step_leaves_finite_weights(make_agent, play_turns, copy_weights):
    agent = make_agent((OBS, FOUR), num_steps=1)
    for turns in (1, 2):
        play_turns(agent, turns)
        assert np.isfinite(agent.learn())
    assert agent.updates == 2
    assert all(torch.isfinite(value).all() for value in copy_weights(agent).values())


def test_a_refused_next_observation_may_be_given_again(make_agent, play_turns):
    agent = make_agent((OBS, FOUR))
    play_turns(agent, 8)
    with pytest.raises(ValueError, match="is expected"):
        agent.learn(np.zeros(3))
    assert agent.rollout_size == 8
    assert agent.learn(np.zeros(2)) != 0.0


def test_the_number_of_transitions_in_a_minibatch(make_agent):
    assert make_agent((OBS, FOUR)).batch_size == 4
    assert make_agent((OBS, FOUR), num_envs=3).batch_size == 12
    assert make_agent((OBS, FOUR), num_minibatches=50).batch_size == 1


# ------------------------------------------------------------------------------------------------------ what is learned


def test_gradients_flow_back_through_time(make_agent, play_turns):
    """The loss of the last step of a sequence depends on the input of its first, up to an episode's start."""
    agent = make_agent((OBS, FOUR), bptt=8)
    play_turns(agent, 8, terminated=[2])
    targets, _ = agent.targets()
    ((minibatch, _),) = agent.buffer.sequences(targets, 1, 8, agent.shuffle)
    obs = minibatch.obs["obs"].requires_grad_()
    params, values, _ = agent.network.unroll({"obs": obs}, minibatch.state, minibatch.starts)
    (gradient,) = torch.autograd.grad(params[-1].sum() + values[-1].sum(), obs)
    reached = gradient.abs().sum((1, 2)) > 0
    assert reached.tolist() == [False] * 3 + [True] * 5


@pytest.mark.parametrize("action_space", [FOUR, spaces.MultiDiscrete([4, 3]), spaces.Box(-1, 1, (2,))], ids=str)
@pytest.mark.parametrize("separate_critic", [False, True])
def test_every_parameter_learns(make_agent, play_turns, copy_weights, action_space, separate_critic):
    """No head, norm or trunk is built, saved and handed to the optimiser without being used."""
    agent = make_agent((OBS, action_space), separate_critic=separate_critic, bptt=8, num_minibatches=1)
    before = copy_weights(agent)
    play_turns(agent, 8)
    agent.learn()
    assert [name for name, value in copy_weights(agent).items() if torch.equal(value, before[name])] == []


@pytest.mark.parametrize("option", [{"refresh_states": True}, {"burn_in": 4}], ids=str)
def test_stored_states_can_be_renewed_with_the_current_weights(make_agent, play_turns, option):
    """In the second epoch the second sequence begins with the state that the current weights reach in 4 steps."""
    agent = make_agent((OBS, FOUR), num_minibatches=1, learning_rate=0.05, **option)
    began, weights, unroll = [], [], agent.network.unroll

    def watched(obs, state, starts):
        if torch.is_grad_enabled():
            began.append({name: leaf.clone() for name, leaf in state.items()})
            weights.append({name: value.clone() for name, value in agent.network.state_dict().items()})
        return unroll(obs, state, starts)

    agent.network.unroll = watched
    play_turns(agent, 8)
    obs, starts = agent.buffer.obs["obs"][:4].clone(), agent.buffer.starts[:4].clone()
    stored = agent.buffer.state["h"][4].clone()
    agent.learn()
    twin = make_agent((OBS, FOUR))
    twin.network.load_state_dict(weights[1])
    with torch.no_grad():
        _, _, current = twin.network.unroll({"obs": obs}, twin.network.initial_state(1), starts)
    assert len(began) == 2
    row = began[1]["h"].abs().sum((1, 2)).argmax()  # the order is shuffled: the other sequence begins with zeros
    torch.testing.assert_close(began[1]["h"][row], current["h"][0])
    assert not torch.allclose(current["h"], stored, atol=1e-4)


def test_an_update_reports_what_can_go_wrong(make_agent, play_turns):
    agent = make_agent(
        (OBS, spaces.MultiDiscrete([4, 3])), bptt=None, num_minibatches=1, action_names=("left", "right")
    )
    play_turns(agent, 8)
    loss, metrics = agent.learn(), agent.last_metrics
    names = {"approx_kl", "clipfrac", "entropy", "value_loss", "policy_loss", "explained_variance", "grad_norm"}
    names |= {"ratio_error", "learning_rate", "clip", "entropy_coef", "loss", "entropy_left", "entropy_right"}
    names |= {"state_staleness", "gradient_share_older_than_1", "hidden_norm", "gate_saturation", "dead_features"}
    assert metrics.keys() == names
    assert all(np.isfinite(value) for value in metrics.values())
    assert loss == metrics["loss"]
    assert min(metrics["grad_norm"], metrics["value_loss"], abs(metrics["policy_loss"])) > 0
    assert metrics["learning_rate"] == agent.ppo.learning_rate


def test_schedules_follow_the_environment_steps(make_agent, train_batched):
    """48 of 96 steps are over before the third update, so half of the learning rate is left there."""
    agent = make_agent(Counter(3), num_envs=3, total_steps=96, learning_rate=0.01, learning_rate_schedule="linear")
    rates = [row["learning_rate"] for row in train_batched(agent, Counter(3), 4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


# ---------------------------------------------------------------------------------------------------- critic and scales


def test_a_separate_critic_shares_nothing_with_the_policy(make_agent, train_batched):
    envs = SpaceProbe(3)
    agent = make_agent(envs, core="lstm", num_envs=3, separate_critic=True, epochs=1)
    assert set(agent.actor.state) == {"h", "c", "critic.h", "critic.c"}
    obs = {"obs": torch.rand(5, 3, 2)}
    _, values, _ = agent.network.unroll(obs, agent.network.initial_state(3), torch.zeros(5, 3, dtype=torch.bool))
    trunk = list(agent.network.actor.parameters())
    assert not any(grad is not None for grad in torch.autograd.grad(values.sum(), trunk, allow_unused=True))
    assert train_batched(agent, envs, 1)[0]["ratio_error"] <= 1e-5


@pytest.mark.parametrize("separate_critic", [False, True])
def test_moments_change_when_it_learns_only(make_agent, collect_steps, separate_critic):
    """2 rows of counts 0 to 3, twice: the first number has mean 1.5 and variance 1.25, the row number 0.5 and 0.25."""
    envs = Counter(2, 4)
    options = {"normalise_observations": True, "normalise_returns": True, "separate_critic": separate_critic}
    agent = make_agent(envs, num_envs=2, **options)
    trunks = [agent.network.actor, agent.network.critic][: 1 + separate_critic]
    moments = [trunk.encoder.parts[0].moments for trunk in trunks] + [agent.return_scale.moments]
    stepper = VectorEnvAdapter(envs)
    shown = collect_steps(agent, stepper, stepper.reset(0))
    assert [part.count for part in moments] == [0] * len(moments)
    agent.learn(shown)
    for part in moments[:-1]:
        torch.testing.assert_close(part.mean, torch.tensor([1.5, 0.5]))
        torch.testing.assert_close(part.var, torch.tensor([1.25, 0.25]))
    evaluate(agent, Counter(3, 4), 6, seed=0)
    agent.training = False
    collect_steps(agent, stepper, shown)
    agent.learn(shown)
    assert [part.count for part in moments] == [16] * len(moments)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return(make_agent, fix_value):
    """gamma = 1/2, rewards 2, 2, episodes of two steps: running returns 2, 3, 2, 3; mean 2.5, variance 1/4.

    So rewards become 2 / 0.5 = 4. With v = 0 and lambda = 1 the returns of an episode are 4 + 4/2 = 6 and 4.
    """
    agent = make_agent((OBS, FOUR), gamma=0.5, gae_lambda=1.0, normalise_returns=True, num_steps=4)
    fix_value(agent, 0.0)
    for turn in range(4):
        agent.act(np.zeros(2))
        agent.observe(2.0, turn % 2 == 1)
    returns = agent.targets()[0].returns[:, 0]
    torch.testing.assert_close(returns, torch.tensor([6.0, 4.0, 6.0, 4.0]), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------- updates that failed


@pytest.mark.parametrize("good_updates", [0, 1])
def test_of_an_update_that_failed_nothing_is_left(make_agent, play_turns, learned_state, good_updates):
    """Its first minibatch was good, its second was not: bit for bit what was there before, but without the rollout."""
    agent = make_agent((OBS, FOUR), normalise_returns=True, normalise_observations=True, epochs=1)
    for _ in range(good_updates):
        play_turns(agent, 8)
        agent.learn()
    before, losses, loss = learned_state(agent), [], agent.ppo.loss

    def bad_in_the_second(*arguments):
        value, metrics = loss(*arguments)
        losses.append(value * (float("nan") if len(losses) == 1 else 1.0))
        return losses[-1], metrics

    agent.ppo.loss = bad_in_the_second
    play_turns(agent, 8, seed=1)
    with pytest.raises(FloatingPointError, match="a loss or gradient was not finite"):
        agent.learn()
    assert len(losses) == 2
    assert torch.isfinite(losses[0])
    (parts, *counted), (parts_before, *counted_before) = learned_state(agent), before
    torch.testing.assert_close(parts, parts_before, rtol=0, atol=0)
    assert counted == counted_before
    assert agent.rollout_size == 0

    agent.ppo.loss = loss
    play_turns(agent, 8, seed=2)
    assert agent.learn() != 0.0
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert agent.updates == good_updates + 1


def test_the_good_minibatch_of_the_test_above_would_have_changed_something(make_agent, play_turns, learned_state):
    agent = make_agent((OBS, FOUR), normalise_returns=True, epochs=1)
    before = learned_state(agent)[0]
    play_turns(agent, 8, seed=1)
    agent.learn()
    weights, moments, scale = learned_state(agent)[0]
    assert not torch.equal(weights["heads.bias"], before[0]["heads.bias"])
    assert moments and not before[1]
    assert not torch.equal(scale["running"], before[2]["running"])


def test_a_rollout_with_an_observation_that_is_no_number_is_dropped(make_agent, play_turns, learned_state):
    agent = make_agent((OBS, FOUR), normalise_returns=True, normalise_observations=True)
    before = learned_state(agent)
    play_turns(agent, 7)
    agent.act(np.full(2, np.nan))
    agent.observe(0.0, True)
    with pytest.raises(FloatingPointError, match="a value or observation of this rollout is not finite"):
        agent.learn()
    (parts, *counted), (parts_before, *counted_before) = learned_state(agent), before
    torch.testing.assert_close(parts, parts_before, rtol=0, atol=0)
    assert counted == counted_before
    assert agent.rollout_size == 0


@pytest.mark.parametrize("end", ["reset", "terminated"])
def test_the_next_episode_after_a_bad_observation_is_learned_from(make_agent, play_turns, end):
    """The memory was no number either, and the start of an episode clears it: in play and in the replay."""
    agent = make_agent((OBS, FOUR), epochs=1)
    play_turns(agent, 7)
    agent.act(np.full(2, np.nan))
    agent.observe(0.0, end == "terminated")
    with pytest.raises(FloatingPointError):
        agent.learn()
    if end == "reset":
        agent.reset()
    play_turns(agent, 8)
    assert agent.learn() != 0.0
    assert agent.last_metrics["ratio_error"] <= 1e-5


# -------------------------------------------------------------------------------------------------------------- teacher


def test_a_teacher_comes_with_a_network_where_one_is_asked_for(make_agent, play_turns, tmp_path):
    first = make_agent((OBS, FOUR), seed=3)
    first.save(tmp_path / "first.pt")
    plain, pupil, other = (make_agent((OBS, FOUR), seed=4, teacher_kl=kl) for kl in (0.0, 0.5, 0.5))
    for agent in (plain, pupil):
        agent.load_network(tmp_path / "first.pt")
    assert plain.teacher is None
    assert "teacher" not in plain.state_dict()
    play_turns(pupil, 8)
    pupil.learn()
    assert pupil.last_metrics["teacher_kl"] < 1e-3
    assert not torch.equal(pupil.network.heads.bias, pupil.teacher.network.heads.bias)
    other.load_state_dict(pupil.state_dict())
    assert torch.equal(other.teacher.network.heads.bias, first.network.heads.bias)
    assert torch.equal(other.teacher.state["h"], pupil.teacher.state["h"])
    assert pupil.teacher.state["h"].any()


def test_a_weight_of_a_teacher_that_rises_from_nothing_is_refused_in_training(make_agent, play_turns):
    agent = make_agent((OBS, FOUR), teacher_kl_final=0.1)
    with pytest.raises(ValueError, match=r"^teacher_kl_final=0\.1: with teacher_kl=0 there is no teacher"):
        play_turns(agent, 1)


def test_an_agent_that_wants_no_teacher_leaves_that_of_a_checkpoint(make_agent, tmp_path):
    pupil, plain = make_agent((OBS, FOUR), teacher_kl=0.5), make_agent((OBS, FOUR))
    plain.save(tmp_path / "first.pt")
    pupil.load_network(tmp_path / "first.pt")
    plain.load_state_dict(pupil.state_dict())
    assert plain.teacher is None


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_envs": 2, "bptt": 3}, "bptt=3 does not divide num_steps=8"),
        ({"num_envs": 2, "num_minibatches": 9}, "num_minibatches=9 is more than the 4 sequences"),
        ({"num_envs": 2, "state_stride": 3}, "state_stride=3 must divide bptt=4"),
        ({"num_envs": 2, "state_stride": 2, "burn_in": 3}, "burn_in=3"),
        ({"state_stride": 2}, "it must be 1"),
        ({"ratio": "both"}, "ratio='both'"),
    ],
    ids=str,
)
def test_impossible_options_are_refused_in_a_sentence(make_agent, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_agent((OBS, FOUR), **options)


def test_each_option_reaches_what_it_is_for(make_agent):
    """Those that no other test of this folder can tell from the default."""
    agent = make_agent((OBS, FOUR), layer_size=12, num_envs=2, state_stride=4, epsilon=0.5, epsilon_min=0.25)
    assert (agent.layer_size, agent.state_stride, agent.epsilon, agent.epsilon_min) == (12, 4, 0.5, 0.25)
    assert agent.network.actor.encoder.output_size == 12
    agent.act(np.zeros((2, 2)))
    assert len(agent.buffer.state["h"]) == 2  # of 8 steps
    picture = spaces.Box(0, 255, (27, 9, 9), np.uint8)
    layout = {name: make_agent((picture, FOUR), image_layout=name) for name in ("channels_first", "channels_last")}
    channels = [agent.network.actor.encoder.parts[0].layers[0].in_channels for agent in layout.values()]
    assert channels == [27, 9]


def test_the_encoder_computes_as_it_was_asked_to(make_agent, monkeypatch):
    """Where it can: what each way needs is tested with the networks."""
    asked = []
    accelerate = "rl.networks.ActorCritic.accelerate"
    monkeypatch.setattr(accelerate, lambda network, example, *how: asked.append((example["obs"].shape, how)))
    make_agent((OBS, FOUR), num_envs=2, compile_encoder=True)
    make_agent((OBS, FOUR), num_envs=2, precision="bfloat16")
    make_agent((OBS, FOUR), num_envs=2)
    assert asked == [((2, 2), how) for how in ((True, "float32"), (False, "bfloat16"), (False, "float32"))]


def test_burn_in_longer_than_a_rollout_of_the_single_form(make_agent, play_turns):
    """bptt may exceed num_steps in the single form, and so may burn_in: there is then nothing to warm up with."""
    agent = make_agent((OBS, FOUR), num_steps=4, bptt=16, burn_in=8, epochs=1)
    play_turns(agent, 4)
    agent.learn()
    assert agent.last_metrics["ratio_error"] <= 1e-5

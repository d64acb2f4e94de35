"""Recurrent PPO: act, observe, learn, for any core, observation space and action space."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rl.agents.actor import LEARN_TOO_EARLY, StepOutcome
from rl.agents.advice import Advisor
from rl.agents.agent import RecurrentAgent
from rl.agents.persistence import is_same_size
from rl.agents.state_checks import check_teacher_entry
from rl.agents.tensor_rollout import BufferedRollout, TensorEnvs, check_collecting
from rl.checks import within
from rl.cores import gru
from rl.cores.memory_span import with_memory_span
from rl.encoders import auto
from rl.encoders.mlp import Activation
from rl.flat_adam import undone_on_failure
from rl.networks import ActorCritic
from rl.networks.acceleration import Precision
from rl.networks.diagnostics import read_numbers
from rl.networks.encoders import ImageEncoding, ImageLayout
from rl.normalisation import AdvantageScale
from rl.ppo import PPO
from rl.ppo.advantages import bootstrap_values_of_cut_episodes
from rl.ppo.diagnostics import diagnose_rollout, measure_staleness, name_remedy
from rl.ppo.options import PPOOptions, check_rollout, choose_stride
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.ppo.teacher import Teacher, check_teacher, unmoved_on_failure
from rl.schedules import check_length
from rl.shards import average_metrics
from rl.types import Core, CutEpisodes, FeatureEncoder, Observation, Played, State, Targets


class RecurrentPPO(RecurrentAgent):
    """Proximal policy optimisation over sequences replayed from stored states.

    ``act`` and ``observe`` collect ``num_steps`` steps, ``learn`` learns from them; callers never see a hidden state.

    Args:
        observation_space: of ONE environment.
        action_space: of ONE environment.
        layer_size: width of the encoder, and of the layers behind the memory.
        epsilon: kept for IQN-style clients, which read and decay it; the policy explores by sampling.
        epsilon_min: floor of its decay.
        device: where network and rollout lie.
        seed: of initialisation, sampling and shuffling; the global generators are left alone.
        core: ``core(input_size) -> Core``, the memory.
        memory_span: steps that a fresh memory lasts, in cores that take it; None for one sequence, or the core's own.
        encoder: ``encoder(input_shapes) -> FeatureEncoder``, what stands in front of the memory; see ``rl.encoders``.
        num_envs: B, with which all that is taken and given has a leading axis B; None for one environment without it.
        num_steps: steps of each environment in a rollout.
        total_steps: environment steps over which the schedules of hyperparameters run; None keeps them constant.
        state_stride: the steps from one stored state to the next, a divisor of ``bptt`` and ``burn_in``; None chooses.
        separate_critic: the value has an encoder and a core of its own.
        critic_core: the core of a separate critic; None for one like that of the policy.
        head_layers: widths of the layers between memory and policy; None for one tanh layer of ``layer_size``.
        value_head_layers: of those between memory and value; None for as many and as wide ones as the policy has.
        head_activation: of these: elu, gelu, relu, silu or tanh.
        normalise_observations: by running moments, frozen at evaluation; images are always.
        normalise_returns: divide rewards by the running deviation of the discounted return; clip to 10 of them.
        previous_action_reward: feed them as inputs.
        noise_correlation: of the noise in actions that are numbers, from one step to the next: 0.8 explores further.
        image_layout: of observations with three or four axes, see ``rl.networks.encoders.Encoder``.
        image_encoding: of images: brightness or categories, see ``rl.networks.encoders.Encoder``.
        ignore_leaves: names of observation leaves that are left out.
        action_names: names of the action branches.
        compile_encoder: run encoders through ``torch.compile``, if that is possible.
        precision: ``float32`` (replay is exact), ``tf32`` (a GPU rounds products) or ``bfloat16`` (of encoders alone).
        diagnostics_every: updates between two that measure ``diagnostics/*``; None for never. They change nothing.
        update: hyperparameters of ``rl.ppo.PPO``.

    Attributes:
        ppo: the hyperparameters and the update.
        buffer: the rollout; allocated at the first step, which shows every shape.

    Raises:
        ValueError: an argument is out of range, or a combination cannot be, in one sentence.
    """

    network: ActorCritic
    algorithm: ClassVar[type[PPO]] = PPO
    ENTRIES = (*RecurrentAgent.ENTRIES, "advantage_scale")

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        layer_size: int = 64,
        epsilon: float = 0.0,
        epsilon_min: float = 0.0,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = gru,
        memory_span: float | None = None,
        encoder: Callable[..., FeatureEncoder | None] = auto,
        num_envs: int | None = None,
        num_steps: int = 128,
        total_steps: int | None = None,
        state_stride: int | None = None,
        separate_critic: bool = False,
        critic_core: Callable[..., Core] | None = None,
        head_layers: Sequence[int] | None = None,
        value_head_layers: Sequence[int] | None = None,
        head_activation: Activation = "tanh",
        normalise_observations: bool = False,
        normalise_returns: bool = False,
        previous_action_reward: bool = False,
        noise_correlation: float = 0.0,
        image_layout: ImageLayout = "auto",
        image_encoding: ImageEncoding = "auto",
        ignore_leaves: Sequence[str] = (),
        action_names: Sequence[str] | None = None,
        compile_encoder: bool = False,
        precision: Precision = "float32",
        diagnostics_every: int | None = 10,
        **update: Unpack[PPOOptions],
    ):
        self.ppo = ppo = self.algorithm(**update)
        check_length(ppo, total_steps)
        self.advisor = Advisor(diagnostics_every, ppo.bptt, name_remedy(ppo, num_steps))
        within(0.0, 1.0, epsilon=epsilon, epsilon_min=epsilon_min)
        self.layer_size, self.epsilon, self.epsilon_min = layer_size, epsilon, epsilon_min
        core = with_memory_span(core, memory_span, length := ppo.bptt or num_steps)
        critic_core = critic_core and with_memory_span(critic_core, memory_span, length)
        options = layer_size, separate_critic, normalise_observations, image_layout, image_encoding, encoder
        heads = action_names, critic_core, head_layers, value_head_layers, head_activation
        recall_length = length if ppo.recall_coef else None
        super().__init__(
            observation_space,
            action_space,
            lambda leaves: ActorCritic(leaves, action_space, core, *options, *heads, recall_length),
            device=device,
            seed=seed,
            learning_rate=ppo.learning_rate,
            num_envs=num_envs,
            num_steps=num_steps,
            total_steps=total_steps,
            previous_action_reward=previous_action_reward,
            normalise_returns=normalise_returns,
            ignore_leaves=ignore_leaves,
        )
        self.actor = self.new_actor(self.num_envs, seed, graphs=ppo.graphs, noise_correlation=noise_correlation)
        self.state_stride = choose_stride(state_stride, length, ppo.burn_in, self.batched, self.actor.state)
        if not self.plays_only:
            self.check_rollout()
        self.advantage_scale = AdvantageScale().to(self.device)
        self.precision = self.network.accelerate(self.example_inputs(), compile_encoder, precision)
        self.teacher: Teacher | None = None  # the policy to stay near to, which load_network makes
        self.buffer: RolloutBuffer | None = None
        self.rollout: BufferedRollout | None = None  # collect makes it
        self._truncated: list[CutEpisodes] = []  # of this rollout

    def check_rollout(self) -> None:
        """Check that rollouts can be cut into sequences and minibatches; raise a ``ValueError`` if not."""
        options = self.ppo.bptt, self.ppo.burn_in, self.ppo.num_minibatches
        check_rollout(*options, self.num_envs, self.num_steps, self.state_stride, fixed_size=self.batched)

    def _store_action(
        self, obs: Observation, state: State, starts: np.ndarray, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        if self.buffer is None or self.rollout is not None:
            self.rollout = None
            check_teacher(self.teacher, self.ppo.teacher_kl, self.ppo.teacher_kl_final)
            self.buffer = self._make_buffer(self.device)
        self.buffer.write_step(obs, state, starts, params, values, actions)

    def _store_outcome(self, outcome: StepOutcome, final_observation: Any) -> None:
        assert self.buffer is not None  # the action has made it
        if outcome.ignored.any():
            self.buffer.has_gaps = True
            self.buffer.store_every_state(self.network.step)  # sequences may then begin at any step
        if final_observation is not None and outcome.truncated.any():
            env_ids = np.flatnonzero(outcome.truncated)
            self._truncated.append(self.actor.cut_episodes(self.buffer.size, final_observation, env_ids))
        self.buffer.finish_step(*outcome)

    def collect(self, envs: TensorEnvs, observation: Any) -> Played:
        """Play ``num_steps`` steps in environments of tensors that show ``observation [B, ...]`` now."""
        check_collecting(self.network.training, self._pending is not None)
        if self.rollout is None or self.rollout.envs is not envs:
            check_teacher(self.teacher, self.ppo.teacher_kl, self.ppo.teacher_kl_final)
            self._truncated, self.buffer = [], self._make_buffer(self.device, told_on=self.device)
            self.rollout = BufferedRollout(self.actor, envs, self.buffer, self.ppo.graphs)
        return self.rollout.play(observation)

    @torch.enable_grad()  # an environment may have turned it off
    def learn(self, next_observation: Any = None) -> float:
        """Learn from the rollout if it has ``num_steps`` steps, else leave it to grow.

        Args:
            next_observation: what is shown now, which values rollouts that are cut; None: what was last acted on.

        Returns:
            The mean loss, 0.0 if there was nothing to train on. More stands in ``last_metrics``.

        Raises:
            RuntimeError: an action waits for its outcome.
            FloatingPointError: a value, loss, gradient or weight is not finite; all but the rollout is as it was.
        """
        buffer = self.buffer
        size = 0 if buffer is None or buffer.has_empty_row or not self.network.training else buffer.size
        if min(self.shards.gather(size)) < self.num_steps or buffer is None:
            return 0.0
        if self._pending is not None:
            raise RuntimeError(LEARN_TOO_EARLY)
        if self.correct_scales(buffer.observations()):  # other features: the rollout cannot be replayed
            self.env_steps += buffer.size * self.num_envs * self.shards.size
            self.forget_rollout()
            return 0.0
        if buffer.size != self.num_steps:  # a client went on for longer: it may be cut at any step
            buffer.store_every_state(self.network.step)
        due = self.advisor.is_due(self.updates)
        parts = self.network, self.advantage_scale, self.return_scale
        moments = [leaf for part in parts if part is not None for leaf in part.buffers()]
        try:
            with undone_on_failure(self.network, self.optimizer, moments), unmoved_on_failure(self.teacher):
                targets, metrics = self.targets(next_observation)
                found = diagnose_rollout(self.network, buffer, targets, self.ppo, self.progress) if due else {}
                given = buffer, targets, self.shuffle, self.progress, self.teacher
                metrics |= self.ppo.update(self.network, self.optimizer, *given)
                if due:
                    after = (self.actor.state, self.actor.starts) if buffer.size == size else None  # None: closed up
                    metrics |= read_numbers(found | measure_staleness(self.network, buffer, self.ppo, after))
                self.network.update_moments(buffer.observations())
        except BaseException as error:
            if isinstance(error, FloatingPointError) or buffer.size != size or self.ppo.refresh_states:
                self.forget_rollout()  # it is of no use: not finite, or cut elsewhere, or with states of undone weights
                self.actor.clear_broken_memories()
            raise
        self.env_steps, self.updates = self.env_steps + self.rollout_size * self.shards.size, self.updates + 1
        self.forget_rollout()
        self.last_metrics = metrics = average_metrics(self.shards, metrics)
        self.advisor.tell(metrics, self.precision)
        return metrics["loss"]

    @torch.no_grad()
    def targets(self, next_observation: Any = None) -> tuple[Targets, dict[str, float]]:
        """Compute what the rollout teaches, see ``rl.ppo.PPO.targets``, once: ignored steps are taken out of it."""
        buffer, last = self.buffer, None
        assert buffer is not None
        if next_observation is not None:
            last = (self.rollout or self.actor).cut_episodes(buffer.size, next_observation, np.arange(self.num_envs))
        *columns, last_values = bootstrap_values_of_cut_episodes(
            self.network.step, buffer.values[: buffer.size], self._truncated, last
        )
        if self.teacher is not None:
            columns.append(self.teacher.follow(buffer.observations(), buffer.starts[: buffer.size]))
        if self.rollout is not None:
            columns[0] = self.rollout.final_values
        if (size := min(self.shards.gather(buffer.whole_steps))) < buffer.size:
            buffer.store_every_state(self.network.step)
            last_values, *columns = buffer.drop_ignored(size, last_values, *columns)
        scales = self.return_scale, self.advantage_scale
        return self.ppo.targets(buffer, self.network.head, columns[0], last_values, *scales, *columns[1:])

    def forget_rollout(self) -> None:
        """Drop what was collected since the last training."""
        self._truncated.clear()
        if self.buffer is not None:
            self.buffer.forget()

    def reset(self) -> None:
        """Close unfinished episodes as truncations and clear the memories; what is stored is kept for training."""
        if self.buffer is not None:
            self.buffer.truncate()
        super().reset()

    def describe(self) -> list[str]:
        """Say how observations are encoded, what the actions are, and what a rollout takes, a line for each."""
        return [*super().describe(), self._make_buffer("meta").describe()]

    def _make_buffer(self, device: Any, told_on: Any = "cpu") -> RolloutBuffer:
        params = torch.empty(self.num_envs, self.network.head.num_params)
        examples = self.example_inputs(), self.actor.state, self.actor.actions, params
        return RolloutBuffer(self.num_steps, *examples, self.state_stride, device, told_on)

    @property
    def rollout_size(self) -> int:
        """Transitions collected since the last training."""
        return self.buffer.size * self.num_envs if self.buffer is not None else 0

    @property
    def batch_size(self) -> int:
        """Transitions in a minibatch."""
        return max(1, self.num_steps * self.num_envs // self.ppo.num_minibatches)

    def state_dict(self) -> dict[str, Any]:
        """Collect all that training needs to go on, the teacher included."""
        own = {"advantage_scale": self.advantage_scale, "teacher": self.teacher}
        return super().state_dict() | {name: part.state_dict() for name, part in own.items() if part is not None}

    def schema(self, same_size: bool) -> dict[str, Any]:
        """Say what ``state_dict`` holds."""
        return super().schema(same_size) | {"advantage_scale": self.advantage_scale.state_dict()}

    def check_state(self, state: Any) -> None:
        """Check what ``load_state_dict`` is going to take, the teacher included."""
        super().check_state(state)
        if self.ppo.teacher_kl and "teacher" in state:
            check_teacher_entry(state["teacher"], self.network, self.num_envs if is_same_size(self, state) else None)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave, see ``RecurrentAgent.load_state_dict``."""
        super().load_state_dict(state)
        self.advantage_scale.load_state_dict(state["advantage_scale"])
        if self.ppo.teacher_kl and "teacher" in state:
            self.teacher = Teacher(self.network, self.num_envs, self.device)
            self.teacher.load_state_dict(state["teacher"], is_same_size(self, state))

    def load_network(self, path: str | Path) -> None:
        """Take the network of a checkpoint; with ``teacher_kl`` a frozen copy is the teacher from now on."""
        super().load_network(path)
        self.teacher = Teacher(self.network, self.num_envs, self.device) if self.ppo.teacher_kl else None

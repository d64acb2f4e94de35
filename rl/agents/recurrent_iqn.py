"""Recurrent IQN: the off-policy sibling of recurrent PPO, with the same calls, encoders and memories."""

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
from rl.agents.client_options import QuantileOptions, as_spaces, translate_quantile_options, uses_client_options
from rl.agents.persistence import is_same_size, restore_replay
from rl.agents.state_checks import check_finite
from rl.agents.tensor_rollout import ReplayedRollout, TensorEnvs, check_collecting
from rl.checks import positive, within
from rl.cores import gru
from rl.cores.memory_span import with_memory_span
from rl.encoders import auto
from rl.flat_adam import undone_on_failure
from rl.iqn import IQN
from rl.iqn.diagnostics import diagnose_replay
from rl.iqn.moments import update_moments
from rl.iqn.sequence_replay import PLAIN, SequenceReplay
from rl.networks import QuantileNetwork
from rl.networks.acceleration import set_precision
from rl.networks.diagnostics import read_numbers
from rl.networks.encoders import ImageEncoding, ImageLayout
from rl.networks.frozen import frozen_copy
from rl.schedules import check_length
from rl.schema import finite, natural
from rl.shards import average_metrics
from rl.sizes import describe_sizes
from rl.types import Core, FeatureEncoder, Observation, Played, State


class RecurrentIQN(RecurrentAgent):
    """An implicit quantile network on a memory: epsilon-greedy, double Q-learning, n-step returns, sequence replay.

    It is called like ``rl.agents.RecurrentPPO``, in the single form and in the batched one. What differs: steps
    are kept and replayed many times, so ``learn`` need not wait for ``num_steps`` steps. Where it is not known what
    a cut episode led to, its last step is not trained and the steps before it take the value of its observation.
    The action of a MultiDiscrete space is one of all combinations of its branches, with a value for each.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    actions, followed by the options of older agents, see ``rl.agents.client_options.translate_quantile_options``.

    Args:
        observation_space: of ONE environment.
        action_space: of ONE environment, Discrete or MultiDiscrete.
        layer_size: width of the encoder and of the layer before the quantiles.
        epsilon: probability of a random action, to begin with.
        epsilon_min: to end with.
        device: where networks and replay lie.
        seed: of initialisation, exploration, tau and the drawing of sequences; the global generators are left alone.
        core: ``core(input_size) -> Core``, the memory.
        memory_span: steps that a fresh memory lasts, for cores that take it; None for ``bptt``, or the core's own.
        encoder: ``encoder(input_shapes) -> FeatureEncoder``, what stands in front of the memory; see ``rl.encoders``.
        num_envs: None for the single-environment form.
        num_steps: of each environment between two calls of ``learn`` by the trainer.
        total_steps: environment steps over which epsilon falls and the schedule of the learning rate runs. None: the
            client sets epsilon itself, by ``epsilon_decay`` or ``set_epsilon``.
        exploration: the share of ``total_steps`` after which epsilon has fallen to ``epsilon_min``, linearly.
        state_stride: sequences may begin at every such step, where the state is stored; None for half of ``bptt``,
            so that they overlap by half (R2D2).
        normalise_observations: by running moments, frozen at evaluation; images are always.
        normalise_returns: divide replayed rewards by the running deviation of the return; clip to 10 of them.
        previous_action_reward: feed them as inputs.
        image_layout: of observations with three or four axes, see ``rl.networks.encoders.Encoder``.
        image_encoding: of images: brightness or categories, see ``rl.networks.encoders.Encoder``.
        ignore_leaves: names of observation leaves that are left out: texts, which no network takes, or others.
        action_names: names of the action branches.
        num_cosines: see ``rl.networks.QuantileNetwork``.
        num_action_quantiles: see ``rl.networks.QuantileNetwork``.
        dueling: see ``rl.networks.QuantileNetwork``.
        diagnostics_every: minibatches between two that measure ``diagnostics/*``; None for never. They change nothing.
        update: hyperparameters of ``rl.iqn.IQN``.

    Attributes:
        iqn: the update.
        target: the network that values what follows.
        buffer: the replay.

    Raises:
        ValueError: an argument is out of range, or the action space is neither Discrete nor MultiDiscrete.
    """

    network: QuantileNetwork
    algorithm: ClassVar[type[IQN]] = IQN
    ENTRIES = (*RecurrentAgent.ENTRIES, "target", "replay", "granted")

    def __init__(
        self,
        observation_space: spaces.Space | int | tuple[int, ...] | None = None,
        action_space: spaces.Space | int | None = None,
        layer_size: int = 64,
        epsilon: float = 1.0,
        epsilon_min: float = 0.05,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = gru,
        memory_span: float | None = None,
        encoder: Callable[..., FeatureEncoder | None] = auto,
        num_envs: int | None = None,
        num_steps: int = 32,
        total_steps: int | None = None,
        exploration: float = 0.2,
        state_stride: int | None = None,
        normalise_observations: bool = False,
        normalise_returns: bool = False,
        previous_action_reward: bool = False,
        image_layout: ImageLayout = "auto",
        image_encoding: ImageEncoding = "auto",
        ignore_leaves: Sequence[str] = (),
        action_names: Sequence[str] | None = None,
        num_cosines: int = 64,
        num_action_quantiles: int = 8,
        dueling: bool = False,
        diagnostics_every: int | None = 100,
        **update: Unpack[QuantileOptions],
    ):
        given: dict[str, Any] = {**update}
        if uses_client_options(observation_space, given):
            observation_space, action_space, core, image_layout, given = translate_quantile_options(
                observation_space, action_space, core, layer_size, image_layout, given
            )
        observation_space, action_space = as_spaces(observation_space, action_space)
        self.iqn = iqn = self.algorithm(**given)
        check_length(iqn, total_steps)
        self.state_stride = max(1, iqn.bptt // 2) if state_stride is None else state_stride
        positive(state_stride=self.state_stride)
        within(0.0, 1.0, epsilon=epsilon, epsilon_min=epsilon_min, exploration=exploration)
        self.exploration, self.layer_size = exploration, layer_size
        self.advisor = Advisor(diagnostics_every, iqn.bptt, "raise agent.burn_in")
        core = with_memory_span(core, memory_span, iqn.bptt)
        options = layer_size, normalise_observations, image_layout, image_encoding, encoder, action_names
        quantiles = num_cosines, num_action_quantiles, dueling
        super().__init__(
            observation_space,
            action_space,
            lambda leaves: QuantileNetwork(leaves, action_space, core, *options, *quantiles),
            device=device,
            seed=seed,
            learning_rate=iqn.learning_rate,
            num_envs=num_envs,
            num_steps=num_steps,
            total_steps=total_steps,
            previous_action_reward=previous_action_reward,
            normalise_returns=normalise_returns,
            ignore_leaves=ignore_leaves,
        )
        self.actor = self.new_actor(self.num_envs, seed, graphs=iqn.graphs)
        self.target = frozen_copy(self.network)
        self.epsilon, self.epsilon_start, self.epsilon_min = epsilon, epsilon, epsilon_min
        examples = self.example_inputs(), self.actor.state, self.actor.actions
        set_precision(self.device, "float32")
        self.buffer = SequenceReplay(iqn.capacity, iqn.length, self.state_stride, *examples, self.device)
        if not self.plays_only:
            self.check_rollout()
        self.rollout: ReplayedRollout | None = None  # collect makes it
        self._learned, self._owed = 0, 0.0  # transitions up to the last learn; minibatches granted and not yet trained

    def check_rollout(self) -> None:
        """Check that learning ever starts; raise a ``ValueError`` if not."""
        self.iqn.check_room(self.num_envs * (self.buffer.size - 1))  # of each environment one entry is being written

    @property
    def epsilon(self) -> float:
        """Probability of a random action in training. With ``total_steps`` its schedule sets it whenever it learns."""
        return self.network.head.epsilon

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self.network.head.epsilon = value

    def _store_action(
        self, obs: Observation, state: State, starts: np.ndarray, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Store the acting half of a step; ``params`` and ``values`` are not kept, other weights will replay it."""
        self._starts = torch.from_numpy(starts)
        self.buffer.write_step(obs, state, starts, actions)

    def _store_outcome(self, outcome: StepOutcome, final_observation: Any) -> None:
        """Store what came of the step, and what was observed where it cut an episode."""
        ignored, cut = (outcome.ignored if outcome.ignored.any() else None), None
        if final_observation is not None and outcome.truncated.any():
            cut = self.actor.cut_episodes(0, final_observation, np.arange(self.num_envs))
        if self.return_scale is not None:  # first, for it may refuse the rewards
            told = [torch.tensor(outcome.rewards), self._starts, *([] if ignored is None else [torch.tensor(ignored)])]
            rewards, starts, *among = (column.to(self.device, non_blocking=True).unsqueeze(0) for column in told)
            self.return_scale.update(rewards, starts, self.iqn.gamma, *among)
        self.buffer.finish_step(outcome.rewards, outcome.terminated, ignored)
        if cut is not None:
            self.buffer.write_final(cut.obs, cut.state, outcome.truncated & ~outcome.ignored)

    def collect(self, envs: TensorEnvs, observation: Any) -> Played:
        """Play ``num_steps`` steps in environments of tensors that show ``observation [B, ...]`` now.

        Raises:
            RuntimeError: the agent is not in training, or an action waits for its outcome.
            FloatingPointError: rewards would ruin the scale of the returns, which is as it was.
        """
        check_collecting(self.network.training, self._pending is not None)
        if self.rollout is None or self.rollout.envs is not envs:
            self.rollout = ReplayedRollout(self.actor, envs, self.buffer, self.num_steps, self.iqn.graphs)
        played = self.rollout.play(observation)
        if self.return_scale is not None:
            self.return_scale.update(played.rewards, self.rollout.starts, self.iqn.gamma)
        return played

    @torch.enable_grad()  # an environment may have turned it off
    def learn(self, next_observation: Any = None) -> float:
        """Learn from as many minibatches as the steps played since the last call and the replay ratio grant.

        Args:
            next_observation: taken for the sake of the trainer; the replay will hold it with the next step.

        Returns:
            The mean loss, 0.0 if there was nothing to train on. More stands in ``last_metrics``.

        Raises:
            RuntimeError: an action waits for its outcome.
            FloatingPointError: an observation that is to be normalised, a loss or a gradient is not finite; weights,
                target and optimiser are as they were, the replay is empty.
        """
        if not self.training:
            return 0.0
        if self._pending is not None:
            raise RuntimeError(LEARN_TOO_EARLY)
        counts = self.buffer.added, self.buffer.count(), self.buffer.ready().sum(), self.buffer.written.min()
        added, *parts = torch.stack(counts).tolist()  # one transfer from the device
        plays, sizes, ready, written = zip(*self.shards.gather((added - self._learned, *parts)), strict=True)
        played, size, sequences, is_full = sum(plays), sum(sizes), min(ready), min(written) >= self.buffer.size
        self._learned, self.env_steps = added, self.env_steps + played
        if self.network.normalises and played:
            self._update_moments()
        if (size >= self.iqn.learning_starts or is_full) and sequences:  # which final entries fill, too
            self._owed += played * self.iqn.replay_ratio / (self.batch_size * self.shards.size)
        count, self._owed = int(self._owed), self._owed - int(self._owed)
        loss = self._learn_minibatches(count) if count else 0.0
        if self.total_steps:
            share = min(1.0, self.progress / self.exploration) if self.exploration else 1.0
            self.epsilon = self.epsilon_start + share * (self.epsilon_min - self.epsilon_start)
        return loss

    def _update_moments(self) -> None:
        """Take what was observed since the last call into the moments of both networks; at a fault forget it."""
        try:
            update_moments(self.network, self.target, self.buffer.new_observations(), self.shards)
        except FloatingPointError:
            self.forget_rollout()  # it would be drawn again and again
            raise

    def _learn_minibatches(self, count: int) -> float:
        """Learn from ``count`` minibatches; return their mean loss."""
        if not self.updates and self.correct_scales(self.buffer.observations()):
            self.target.load_state_dict(self.network.state_dict())
        try:
            with undone_on_failure(self.network, self.optimizer, self.target.parameters()):
                given = self.network, self.target, self.optimizer, self.buffer, count, self.updates, self.shuffle
                metrics = self.iqn.update(*given, self.actor.generator, self.progress, self.return_scale)
            if self.advisor.is_due(self.updates, count):
                metrics |= read_numbers(diagnose_replay(self.network, self.buffer, self.iqn.burn_in, self.iqn.bptt))
                self.advisor.tell(metrics)
        except FloatingPointError:
            self.forget_rollout()  # it would be drawn again and again
            self.actor.clear_broken_memories()
            raise
        self.updates += count
        metrics = average_metrics(self.shards, metrics)
        self.last_metrics = metrics | {"epsilon": self.epsilon}
        return metrics["loss"]

    def describe(self) -> list[str]:
        """Say how observations are encoded, what the actions are, and what the replay takes, a line for each."""
        replay, plain = self.buffer, {name: getattr(self.buffer, name) for name in PLAIN}
        sizes = describe_sizes("replay", {"observation": replay.obs, "state": replay.state, "": plain})
        return [*super().describe(), sizes]

    def forget_rollout(self) -> None:
        """Empty the replay."""
        self.buffer.clear()

    @property
    def rollout_size(self) -> int:
        """Transitions in the replay."""
        return len(self.buffer)

    @property
    def batch_size(self) -> int:
        """Transitions in a minibatch."""
        return self.iqn.sequences * self.iqn.bptt

    def state_dict(self) -> dict[str, Any]:
        """Collect all that training needs to go on exactly, the replay included."""
        own = {"target": self.target.state_dict(), "replay": self.buffer.state_dict()}
        check_finite(own, self.network)
        return super().state_dict() | own | {"granted": [int(self.buffer.added) - self._learned, self._owed]}

    def schema(self, same_size: bool) -> dict[str, Any]:
        """Say what ``state_dict`` holds, see ``RecurrentAgent.schema``."""
        own = {"target": self.target.state_dict(), "replay": self.buffer.check_state, "granted": [natural, finite]}
        return super().schema(same_size) | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave, see ``RecurrentAgent.load_state_dict``; the replay goes with memories."""
        super().load_state_dict(state)
        self.target.load_state_dict(state["target"])
        played, self._owed = state["granted"] if is_same_size(self, state) else (0, 0.0)
        self._learned = int(self.buffer.added) - played
        restore_replay(self, self.buffer, state["replay"])

    def load_network(self, path: str | Path) -> None:
        """Take the network of a checkpoint, see ``RecurrentAgent.load_network``; the target begins there, too."""
        super().load_network(path)
        self.target.load_state_dict(self.network.state_dict())

"""The checks of a ``RecurrentPPO`` of sb3-contrib."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from rl.memory_check.check import check_learner
from rl.memory_check.generators import own_draws
from rl.memory_check.sb3_learner import SB3Learner, copy_model
from rl.memory_check.verdicts import Verdict

if TYPE_CHECKING:
    from sb3_contrib import RecurrentPPO

BIAS = "a larger bias of the LSTM's forget gates"
ADVICE = {
    "observations_are_in_scale": "wrap the environments in VecNormalize, or scale what they send",
    "features_are_alive": "wrap the environments in VecNormalize, or look at the features extractor",
    "stored_states_stay_fresh": "lower learning_rate or n_epochs: this agent never renews states that it has stored",
    "gradient_reaches_back": f"what lies further back teaches nothing at first: {BIAS} reaches further",
    "time_scales": f"it fades fast at first, so long delays are found late: {BIAS} keeps it",
}
"""What to do, in the words of sb3-contrib, where nothing has failed."""

MOMENTS = ("obs_rms", "ret_rms", "returns", "old_obs", "old_reward")


def check_memory_of_sb3(model: "RecurrentPPO", env: Any = None, seed: int = 0) -> list[Verdict]:
    """Check that an agent of sb3-contrib remembers, replays and learns what it should in an environment.

    A copy of it plays a rollout by its own ``collect_rollouts``, replays it by its own ``train`` with an optimiser that
    does nothing, and trains once; so whatever a subclass of agent, policy or buffer does counts. The model itself, the
    generators of the process and the moments of a ``VecNormalize`` stay as they are.

    Args:
        model: trained or not.
        env: to play in, as the model takes it. It is seeded, and reset at the beginning and at the end. None: the
            model's own; if it is in mid-training, it goes on with new episodes.
        seed: of the environments and of the draws.

    Raises:
        ImportError: sb3-contrib is not installed.
        ValueError: the model is another one, it cannot be copied, or the environment does not fit.
    """
    try:
        from sb3_contrib import RecurrentPPO
        from stable_baselines3.common.logger import Logger
    except ImportError as error:
        raise ImportError(f"its agents need the package {error.name}: pip install 'recurrent-ppo[bench]'") from error
    if not isinstance(model, RecurrentPPO):
        raise ValueError(f"model={model!r}: it must be a RecurrentPPO of sb3-contrib")
    if env is None and model.get_env() is None:
        raise ValueError("env=None: it must be an environment, for the model has none")
    if env is not None and getattr(env, "num_envs", 1) != model.n_envs:
        raise ValueError(f"env={env}: it must be as many as the model plays, {model.n_envs}")
    with own_draws(seed):
        twin = copy_model(model)
        twin.verbose = 0
        twin.set_logger(Logger(folder=None, output_formats=[]))
        if env is not None:
            twin.set_env(env)
        learner = SB3Learner(twin, seed)
        with _kept(twin.env, model):
            verdicts = check_learner(learner, seed)
    return [_reword(verdict, learner) for verdict in verdicts] + [_check_weights(learner)]


def _reword(verdict: Verdict, learner: SB3Learner) -> Verdict:
    """Give advice in the words of sb3-contrib; after a failed update there are no new weights to judge."""
    if learner.fault and verdict.check == "stored_states_stay_fresh":
        return Verdict(verdict.check, None, "not judged, for the update has failed", "", {})
    spoken = verdict.advice and verdict.passed is None
    return verdict._replace(advice=ADVICE.get(verdict.check, verdict.advice)) if spoken else verdict


def _check_weights(learner: SB3Learner) -> Verdict:
    """Check that an update leaves weights that are numbers."""
    name, model = "weights_stay_finite", learner.model
    if not learner.fault:
        return Verdict(name, True, "after an update all weights are finite", "", {})
    steps, size = model.n_steps * model.n_envs, model.batch_size
    alone = bool(size) and steps % size == 1 and model.normalize_advantage
    advice = "lower learning_rate or max_grad_norm"
    if alone:
        advice = f"choose a batch_size that divides {steps} steps: one is left for the last minibatch, and a single "
        advice += "advantage has no standard deviation"
    return Verdict(name, False, learner.fault, advice, {"steps": steps, "batch_size": size})


@contextmanager
def _kept(env: Any, model: "RecurrentPPO") -> Iterator[None]:
    """Afterwards, begin new episodes with the moments of before, and tell the model if these are its environments."""
    from stable_baselines3.common.vec_env import VecNormalize

    layers, layer = [], env
    while layer is not None:
        layers += [layer] if isinstance(layer, VecNormalize) else []
        layer = vars(layer).get("venv")
    before: list[dict[str, Any]] = [
        deepcopy({name: vars(layer).get(name) for name in (*MOMENTS, "training")}) for layer in layers
    ]
    try:
        yield
    finally:
        for layer, attributes in zip(layers, before, strict=True):
            vars(layer).update(attributes, training=False)
        obs = env.reset()
        for layer, attributes in zip(layers, before, strict=True):
            layer.training = attributes["training"]
        if env is model.get_env() and model._last_obs is not None:
            model._last_obs, model._last_episode_starts = obs, np.ones(model.n_envs, dtype=bool)

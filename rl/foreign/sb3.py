"""Agents of sb3-contrib as agents of this project."""

import logging
from pathlib import Path

import torch

from rl.agents import RecurrentPPOLSTM
from rl.foreign.sb3_file import SB3File, read_sb3
from rl.foreign.sb3_policy import agent_arguments, check_policy
from rl.foreign.sb3_weights import convert_weights
from rl.foreign.vec_normalize import Moments, Normaliser, read_vec_normalize
from rl.normalisation import ReturnScale
from rl.trust import UntrustedError

log = logging.getLogger(__name__)


def from_sb3(
    path: str | Path,
    vec_normalize: str | Path | None = None,
    num_envs: int | None = None,
    device: str | torch.device = "cpu",
    seed: int | None = None,
) -> RecurrentPPOLSTM:
    """Make an agent of a ``RecurrentPPO`` that sb3-contrib has saved; neither it nor stable-baselines3 is needed.

    Given the same observations it takes the same greedy actions and gives the same values, but for rounding. Images are
    observed as sb3 observed them, channels first. Nothing in the files is executed.

    It plays: ``training`` is False. It can be saved, exported and trained on; its settings are those of the file where
    they are constant. The moments of Adam are not taken over.

    Args:
        path: the zip of ``model.save``.
        vec_normalize: the file of ``VecNormalize.save``, if the agent was trained behind one; ours then normalises.
        num_envs: None for the form with one environment.
        device: where the agent lies.
        seed: of sampled actions and of further training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged or something else, or there is no agent of ours that is the same function; the
            sentence names what does not fit.
        rl.trust.UntrustedError: a file holds code where spaces or moments should be.
    """
    file = read_sb3(path)
    normaliser = None if vec_normalize is None else read_vec_normalize(vec_normalize)
    try:
        return _convert(file, normaliser, num_envs, device, seed)
    except ValueError as error:
        refusal = UntrustedError if isinstance(error, UntrustedError) else ValueError
        raise refusal(f"{file.path}: {error}") from error
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{file.path}: it is damaged ({type(error).__name__})") from error


def _convert(
    file: SB3File, normaliser: Normaliser | None, num_envs: int | None, device: str | torch.device, seed: int | None
) -> RecurrentPPOLSTM:
    check_policy(file)
    arguments = agent_arguments(file, normaliser, num_envs)
    agent = RecurrentPPOLSTM(**arguments, device=str(device), seed=seed)
    agent.network.load_state_dict(convert_weights(file, normaliser, agent.network))
    if normaliser is not None and normaliser.returns is not None and agent.return_scale is not None:
        _fill(agent.return_scale, normaliser.returns)
        if normaliser.gamma != agent.ppo.gamma:
            log.warning("VecNormalize had gamma=%s: from here on returns have %s", normaliser.gamma, agent.ppo.gamma)
    agent.env_steps = int(file.data.get("num_timesteps", 0))
    agent.updates = max(1, int(file.data.get("_n_updates", 0)) // agent.ppo.epochs)  # so its scales stay as they are
    vector = agent.optimizer.param_groups[0]["params"][0]
    agent.optimizer.state[vector] = {  # of Adam before its first step
        "step": torch.zeros((), device=vector.device),
        "exp_avg": torch.zeros_like(vector),
        "exp_avg_sq": torch.zeros_like(vector),
    }
    for name in ("learning_rate", "clip_range"):
        if name not in file.data:
            log.warning("%s is a schedule, which is code: training would go on with the default of this project", name)
    agent.training = False
    return agent


def _fill(scale: ReturnScale, moments: Moments) -> None:
    """Give the scale of the returns what ``VecNormalize`` has seen of them."""
    for own, value in zip(("mean", "var", "count"), moments, strict=True):
        getattr(scale.moments, own).copy_(torch.as_tensor(value))

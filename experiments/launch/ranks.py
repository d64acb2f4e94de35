"""The folder and configuration of a run on several ranks: rank 0 claims the folder, and all go by what it has read."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.launch.check import ConfigError
from experiments.launch.claim import CHECKPOINTS, RunFolder, claim_folder, read_overrides
from experiments.launch.escape import escape_interpolations
from experiments.launch.run_folder import load_resumed_config, name_agent, name_env
from rl.training.distributed import Ranks

log = logging.getLogger(__name__)


def claim_run(
    config: DictConfig, overrides: list[str] | None, ranks: Ranks, opened: ExitStack
) -> tuple[DictConfig, Path, RunFolder | None]:
    """Claim the folder of a training run.

    Args:
        config: of the command line.
        overrides: what of it the user has set, which a resumed run takes over; None for what the command line says.
        ranks: of the run.
        opened: closes the folder.

    Returns:
        The configuration of the run, the path of its folder, and, on rank 0, the folder.

    Raises:
        ConfigError, ValueError, OSError: it cannot be run, or not in that folder.
        RankLostError: on another rank, rank 0 has found one of these.
    """
    folders: list[RunFolder] = []

    def claim() -> tuple[DictConfig, Path]:
        given, set_by_user = _go_on_after_restart(config, overrides, ranks)
        env = "none" if given.get("env") is None else name_env(given.env)
        name = f"{name_agent(given.get('agent'))}-{env}-seed{given.seed}"
        folder = opened.enter_context(claim_folder("train", given, name))
        folders.append(folder)
        ranks.remember(str(folder.path))
        if given.resume is not None:
            reason = f"resume={given.resume}"
            given = load_resumed_config(given, read_overrides("train", reason) if set_by_user is None else set_by_user)
        if "imitation" in given:
            reason = "learned from a recording: go on with experiments.imitate, or init_from it"
            raise ConfigError(f"{given.resume} {reason}")
        return _count_shards(given, ranks), folder.path

    if ranks.world > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError("--multirun does not go with torchrun: start one torchrun for each run")
    complete, path = ranks.lead(claim)
    return complete, path, folders[0] if folders else None


def _go_on_after_restart(
    config: DictConfig, overrides: list[str] | None, ranks: Ranks
) -> tuple[DictConfig, list[str] | None]:
    """Return the command that goes on with the run that torchrun has started again, or begins it anew in its folder."""
    before = ranks.recall() if config.resume is None else None
    if before is None:
        return config, overrides
    if not any((Path(before) / name).is_file() for name in CHECKPOINTS):
        return _change(config, run_dir=before, overwrite=True), overrides
    log.info("torchrun has started this run again: it goes on from its last checkpoint in %s", before)
    return _change(config, resume=before, run_dir=None, overwrite=False), []


def _count_shards(config: DictConfig, ranks: Ranks) -> DictConfig:
    """Fill in the number of shards: one for each rank, unless it is given; a resumed run keeps its own if it can."""
    if config.shards is None and ranks.world == 1:
        return config
    number = ranks.world if config.shards is None else config.shards
    if config.resume is not None and isinstance(number, int) and number % ranks.world:
        log.warning(
            "%d shards cannot be dealt out to %d ranks, so there are %d shards now: what was learned is kept, "
            "environments, memories and generators begin anew",
            *(number, ranks.world, ranks.world),
        )
        number = ranks.world
    return _change(config, shards=number)


def _change(config: DictConfig, **changes: Any) -> DictConfig:
    """Return a configuration with other values at its top."""
    changed = config.copy()
    for key, value in changes.items():
        changed[key] = escape_interpolations(value) if isinstance(value, str) else value
    return changed

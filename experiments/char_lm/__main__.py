"""Train a model of the characters of a text, on any core, and sample from it.

python -m experiments.char_lm core=gru text=FILE steps=300
python -m experiments.char_lm weights=RUN_DIR steps=0 prompt="To be" temperature=0
"""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.char_lm.stored import adopt_run
from experiments.char_lm.training import Training
from experiments.launch.claim import claim_folder, name_target, read_overrides, tell_how_to_go_on
from experiments.launch.command import launch
from experiments.launch.run_folder import write_config, write_result
from rl.training.metrics import Metrics
from rl.training.signals import Stopped

log = logging.getLogger(__name__)


def run(config: DictConfig, overrides: list[str] | None = None) -> float:
    """Train, evaluate, fill the run folder.

    Args:
        config: composed from ``conf/char_lm.yaml``.
        overrides: what of it the user has set, which ``weights`` leaves alone; None for what the command line says.

    Returns:
        Held-out bits per character, from memories that start as they were trained to.

    Raises:
        ConfigError, ValueError, OSError: it cannot be run, or not in that folder.
        Stopped: a signal has ended it; what was learned is saved.
    """
    name = f"char_lm-{name_target(config.get('core'))}-seed{config.seed}"
    with claim_folder("char_lm", config, name) as folder:
        if overrides is None:
            overrides = read_overrides("char_lm", f"weights={config.weights}") if config.weights is not None else []
        training = Training(adopt_run(config, overrides))
        folder.begin("char_lm.log")
        return train(training, folder.path)


def train(training: Training, run_dir: Path) -> float:
    """Do what ``run`` does, with everything at hand."""
    write_config(run_dir, training.config)
    with Metrics(run_dir, max(1, training.settings.steps)) as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(training.config)}```")
        metrics.say(f"{training.core_name} with {training.num_parameters} parameters, run folder {run_dir}")
        training.train(run_dir, metrics)
        if training.stopped_by is not None:
            hint = tell_how_to_go_on("weights", run_dir)
            raise Stopped(training.stopped_by, f"after {training.step} steps; {hint}")
        result = training.summarise(metrics)
        metrics.text("sample", f"```\n{result['prompt']}{result['sample']}\n```")
        metrics.hparams(training.get_hparams(), {"bits_per_char": result["bits_per_char"]})
    write_result(run_dir, result, training.config)
    log.info("%s%s\n", result["prompt"], result["sample"])
    log.info(
        "%(bits_per_char).3f bits per character (state carried %(bits_per_char_carried).3f, from zero "
        "%(bits_per_char_zero_state).3f), %(parameters)d parameters, %(steps)d steps in %(training_seconds).1f s",
        result,
    )
    return result["bits_per_char"]


def main() -> None:
    """Run the command."""
    launch(run, "char_lm")


if __name__ == "__main__":
    main()

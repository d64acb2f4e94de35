"""Train a model of the characters of a text, on any core, and sample from it.

python -m experiments.char_lm core=gru text=FILE steps=300
python -m experiments.char_lm weights=RUN_DIR steps=0 prompt="To be" temperature=0
"""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.char_lm.stored import adopt_run
from experiments.char_lm.training import Training
from experiments.launch.command import launch
from experiments.launch.run_folder import write_config, write_result
from rl.training.metrics import Metrics

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Train, evaluate, fill the run folder.

    Returns:
        Held-out bits per character, from memories that start as they were trained to.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    training = Training(adopt_run(config, HydraConfig.get().overrides.task))
    write_config(run_dir, training.config)
    with Metrics(run_dir, max(1, training.settings.steps)) as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(training.config)}```")
        metrics.say(f"{training.core_name} with {training.num_parameters} parameters, run folder {run_dir}")
        if not training.train(run_dir, metrics):
            metrics.say(f"stopped after {training.step} steps")
        result = training.summarise(metrics)
        metrics.text("sample", f"```\n{result['prompt']}{result['sample']}\n```")
        metrics.hparams(training.get_hparams(), {"bits_per_char": result["bits_per_char"]})
    write_result(run_dir, result)
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

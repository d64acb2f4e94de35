"""Write a trained policy as ONNX: one step with its memory as inputs and outputs, for programs without torch.

python -m experiments.export run=RUN_DIR output=policy.onnx

Beside it come a recording of greedy play, ``policy.npz``, and ``replay_onnx.py``, which plays it through the model.
"""

import logging
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import build
from experiments.launch.check import ConfigError, convert, prepare_output
from experiments.launch.command import launch
from experiments.launch.evaluations import EVALUATION_SEED
from experiments.launch.run_folder import choose_checkpoint, load_run_config
from rl import export
from rl.checkpoint import atomic_write
from rl.checks import positive, within

log = logging.getLogger(__name__)
RECORDED_ENVS = 2  # or a few more, to make whole worlds of several agents
FLOAT32 = {"precision": "float32", "compile_encoder": False}  # others would put other arithmetic into the exported step


def run(config: DictConfig) -> float:
    """Write model and recording and, for ONNX, compare them.

    Returns:
        The largest difference between the agent and the ONNX model; 0 for another format.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    steps, seed = convert(config.steps, int, "steps"), convert(config.seed, int, "seed")
    positive(steps=steps)
    within(0, 2**31, seed=seed)
    output = prepare_output(convert(config.output, str, "output"), "output")
    export.check_format(output)
    stored = load_run_config(config.run, config.get("trust"))
    OmegaConf.update(stored, "device", "cpu")
    for option, value in FLOAT32.items():
        if option in stored.agent:
            OmegaConf.update(stored, f"agent.{option}", value)
    checkpoint, here = choose_checkpoint(config), Path.cwd()  # an environment may change the working folder
    assert checkpoint is not None  # of a run that is given
    output = output.absolute()
    with closing(build(stored, playing=True, at_most=RECORDED_ENVS)) as parts:
        parts.agent.load(here / checkpoint)
        export.write(parts.agent, output)
        recording: dict[str, Any] = export.record(parts.agent, parts.evaluation_envs, steps, EVALUATION_SEED + seed)
    with atomic_write(output.with_suffix(".npz")) as file:
        np.savez_compressed(file, **recording)
    log.info("%s after %d steps, %s: %s", parts.agent.model_name, parts.agent.env_steps, checkpoint, output)
    return compare_with_recording(output) if output.suffix == ".onnx" else 0.0


def compare_with_recording(model: Path) -> float:
    """Play the recording beside a model through it, with the script that is left there for others.

    Returns:
        The largest difference.
    """
    from experiments.replay_onnx import replay  # needs a package of an extra

    script = Path(__file__).with_name("replay_onnx.py")
    if script.parent != model.parent.resolve():
        shutil.copy(script, model.parent)
    differences = replay(str(model), str(model.with_suffix(".npz")))
    for name, difference in differences.items():
        log.info("%-24s equal to %.1e", name, difference)
    return max(differences.values())


def main() -> None:
    """Run the command."""
    launch(run, "export")


if __name__ == "__main__":
    main()

"""Write the card of a finished run anew, with a picture of its evaluations: what a stranger needs to know of its agent.

python -m experiments.card run=RUN_DIR
python -m experiments.card run=RUN_DIR licence=MIT
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.launch.card import CARD, PICTURE, write_card
from experiments.launch.check import ConfigError, convert
from experiments.launch.command import launch
from experiments.launch.run_folder import load_run_config, read_result
from experiments.tables.figures import label_steps, open_figure

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write ``card.md`` and, where matplotlib is installed, ``card.png`` into the run folder."""
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a finished training run")
    licence = convert(config.licence, str | None, "licence")
    folder, stored = Path(config.run), load_run_config(config.run, config.get("trust"))
    if not (folder / "result.json").is_file():
        raise ConfigError(f"run={folder}: it has not finished, for it has no result.json")
    result = read_result(folder)
    if "evaluations" not in result:
        raise ConfigError(f"run={folder}: its result is not that of experiments.train")
    write_card(folder, stored, result, draw(result, folder / PICTURE), licence)
    log.info("%s", folder / CARD)


def draw(result: dict[str, Any], output: Path) -> str | None:
    """Draw the evaluations of a run; return why there is no picture, None if there is one."""
    points = result["evaluations"]
    if not points:
        return "The run was not evaluated while it was trained."
    try:
        with open_figure(1, output) as (_, (axis,)):
            steps = [point["env_steps"] for point in points]
            axis.plot(steps, [point["return"] for point in points], marker=".", label="with its memory")
            zeroed = [(point["env_steps"], point.get("memory_zeroed_return")) for point in points]
            kept = [pair for pair in zeroed if pair[1] is not None]
            if kept:
                axis.plot(*zip(*kept, strict=True), marker=".", label="memory zeroed before every step")
            for name, style in (("optimal_return", "--"), ("memoryless_return", ":")):
                if result.get(name) is not None:
                    label = f"{name.partition('_')[0]} {result[name]:g}"
                    axis.axhline(result[name], color="0.4", linestyle=style, linewidth=1, label=label)
            label_steps(axis, "evaluation return")
    except ModuleNotFoundError as error:
        return f"There is no picture: {error}."
    return None


def main() -> None:
    """Run the command."""
    launch(run, "card")


if __name__ == "__main__":
    main()

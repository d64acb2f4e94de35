"""Draw learning curves with confidence bands over seeds, as PNG.

python -m experiments.plot runs=[runs/a,runs/b] output=curves.png
python -m experiments.plot runs=[runs/a] tag=[losses/entropy,losses/approx_kl]
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.launch.check import ConfigError, convert, prepare_output, read_list
from experiments.launch.command import launch
from experiments.tables.curves import draw, label_run, make_panels, read_curve


def run(config: DictConfig) -> None:
    """Draw one panel for each tag and environment, one line for each agent and core: mean over seeds, 95 % band."""
    if not config.runs:
        raise ConfigError("runs is empty: give the folders of training runs, runs=[RUN_DIR,RUN_DIR]")
    output = prepare_output(convert(config.output, str, "output"), "output")
    folders = [folder for path in read_list(config.runs, "runs") for folder in find_run_folders(str(path))]
    tags = [str(tag) for tag in read_list(config.tag, "tag")]
    panels = make_panels()
    for tag in tags:
        for folder in folders:
            panel, line = label_run(folder, config.get("trust"))
            title = panel if len(tags) == 1 else f"{tag}\n{panel}"
            panels[title][line].append(read_curve(folder, tag))
    draw(panels, tags[0] if len(tags) == 1 else "", output)
    print(f"{len(folders)} runs -> {config.output}")


def find_run_folders(path: str) -> list[Path]:
    """Return the run folder ``path``, or those inside it (a sweep).

    Raises:
        ConfigError: there is none.
    """
    folders = [file.parent for file in sorted(Path(path).rglob("config.yaml"))]
    if not folders:
        raise ConfigError(f"{path} holds no run: no config.yaml in it or below it")
    return folders


def main() -> None:
    """Run the command."""
    launch(run, "plot")


if __name__ == "__main__":
    main()

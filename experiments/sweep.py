"""Look for the settings of a training run.

python -m experiments.sweep experiment=witness_vote trials=50
python -m experiments.sweep study=STUDY_DIR experiment=witness_vote trials=100   # goes on, or joins in
"""

from experiments.launch.command import launch
from experiments.sweeps.search import run


def main() -> None:
    """Run the command."""
    launch(run, "sweep")


if __name__ == "__main__":
    main()

"""Show what the runs and searches below a folder do.

python -m experiments.status
python -m experiments.status runs=STUDY_DIR states=[running,dead]
"""

from experiments.launch.command import launch
from experiments.sweeps.status import run


def main() -> None:
    """Run the command."""
    launch(run, "status")


if __name__ == "__main__":
    main()

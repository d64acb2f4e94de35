"""All cores on the same tasks, with equally many parameters and equal batches: what they learn and what they cost.

python -m experiments.compare_cores                          # everything, two runs at a time
python -m experiments.compare_cores rows=[t_maze_10] cores=[gru,mamba] seeds=[1,2]

What is finished is kept when the command is called again. Speeds are those of runs that share the machine with
``jobs - 1`` others; single actions are timed at the end, all cores of a task in turns, on one thread.
"""

from experiments.launch.command import launch
from experiments.tables.compare_cores import run


def main() -> None:
    """Run the command."""
    launch(run, "compare_cores")


if __name__ == "__main__":
    main()

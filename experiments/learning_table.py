"""Trains every row of the learning table on several seeds, then writes table, plot and raw numbers.

python -m experiments.learning_table                          # everything, two runs at a time
python -m experiments.learning_table rows=[t_maze_10] seeds=[1,2]
"""

from experiments.launch.command import launch
from experiments.tables.learning_table import run


def main() -> None:
    """Run the command."""
    launch(run, "learning_table")


if __name__ == "__main__":
    main()

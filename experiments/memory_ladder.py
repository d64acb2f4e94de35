"""Climbs two memory tasks with ever longer delays: which delay a core learns, in how many steps and seconds.

python -m experiments.memory_ladder                               # five cores, ten seeds, hours
python -m experiments.memory_ladder cores=[gru] rows=[t_maze] seeds=[1,2,3]
python -m experiments.memory_ladder "overrides=['agent.gae_lambda=0.95']" output=runs/my_ladder
"""

from experiments.launch.command import launch
from experiments.tables.memory_ladder import run


def main() -> None:
    """Run the command."""
    launch(run, "memory_ladder")


if __name__ == "__main__":
    main()

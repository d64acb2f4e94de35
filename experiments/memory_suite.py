"""The memory tasks of the field with several cores, on several seeds, with one set of settings for all tasks.

python -m experiments.memory_suite                          # everything, two runs at a time
python -m experiments.memory_suite rows=[repeat_first_easy,rock_sample] cores=[mlp,gru] seeds=[1,2]
python -m experiments.memory_suite peers=[sb3-contrib]      # beside RecurrentPPO of sb3-contrib

What is finished is kept when the command is called again.
"""

from experiments.launch.command import launch
from experiments.tables.memory_suite import run


def main() -> None:
    """Run the command."""
    launch(run, "memory_suite")


if __name__ == "__main__":
    main()

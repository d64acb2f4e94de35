"""The tasks of POPGym and POBAX, for the tests that hold for all environments."""

from envs.popgym_tasks.battleship import Battleship
from envs.popgym_tasks.card_streams import Autoencode, HigherLower, RepeatFirst, RepeatPreviousCards
from envs.popgym_tasks.cartpole import NoisyPositionOnlyCartPole, VelocityOnlyCartPole
from envs.popgym_tasks.concentration import Concentration
from envs.popgym_tasks.count_recall import CountRecall
from envs.popgym_tasks.mine_sweeper import MineSweeper
from envs.rock_sample import RockSample
from envs.t_maze import PobaxTMaze

FIELD_TASKS = {
    "pobax_t_maze": (PobaxTMaze, {"length": 2, "max_episode_steps": 20}),
    "rock_sample": (RockSample, {"size": 3, "num_rocks": 2, "max_episode_steps": 20}),
    "repeat_first": (RepeatFirst, {}),
    "repeat_previous_cards": (RepeatPreviousCards, {}),
    "autoencode": (Autoencode, {}),
    "higher_lower": (HigherLower, {}),
    "count_recall": (CountRecall, {}),
    "concentration": (Concentration, {}),
    "mine_sweeper": (MineSweeper, {}),
    "battleship": (Battleship, {}),
    "velocity_only_cartpole": (VelocityOnlyCartPole, {}),
    "noisy_position_only_cartpole": (NoisyPositionOnlyCartPole, {}),
}

# What a new episode begins with, see test_batched_env_device.py.
FIELD_STARTS = {
    "pobax_t_maze": {"cue": 2, "position": 1},
    "rock_sample": {"position": 6},
    "repeat_first": {"cards": 4},
    "higher_lower": {"cards": 13},
    "count_recall": {"values": 2, "queries": 2},
    "concentration": {"cards": 2, "board": 1},
    "velocity_only_cartpole": {"state": (-0.05, 0.05)},
}

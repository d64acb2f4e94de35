"""Memory tasks, vectorised in numpy. Importing this package registers them with Gymnasium.

``gymnasium.make("RecurrentPPO/TMaze-v0", length=30)`` makes one copy,
``gymnasium.make_vec("RecurrentPPO/TMaze-v0", num_envs=64, length=30)`` a vector environment. The classes can as well be
constructed directly.
"""

import gymnasium

for _task in (
    "envs.t_maze:TMaze",
    "envs.t_maze:PobaxTMaze",
    "envs.delayed_recall:DelayedRecall",
    "envs.repeat_previous:RepeatPrevious",
    "envs.copy_sequence:CopySequence",
    "envs.bernoulli_bandit:BernoulliBandit",
    "envs.classic_control:CartPoleNoVelocity",
    "envs.classic_control:PendulumNoVelocity",
    "envs.classic_control:MountainCarContinuousNoVelocity",
    "envs.witness_vote:WitnessVote",
    "envs.memory_grid:MemoryGrid",
    "envs.state_punishment:StatePunishment",
    "envs.rock_sample:RockSample",
    "envs.popgym_tasks.card_streams:RepeatFirst",
    "envs.popgym_tasks.card_streams:RepeatPreviousCards",
    "envs.popgym_tasks.card_streams:Autoencode",
    "envs.popgym_tasks.card_streams:HigherLower",
    "envs.popgym_tasks.count_recall:CountRecall",
    "envs.popgym_tasks.concentration:Concentration",
    "envs.popgym_tasks.mine_sweeper:MineSweeper",
    "envs.popgym_tasks.battleship:Battleship",
    "envs.popgym_tasks.cartpole:VelocityOnlyCartPole",
    "envs.popgym_tasks.cartpole:NoisyPositionOnlyCartPole",
):
    gymnasium.register(
        f"RecurrentPPO/{_task.split(':')[1]}-v0",
        entry_point="envs.single_env:SingleEnv",
        vector_entry_point="envs.single_env:make_batched",
        # One copy of State Punishment is one agent, so here it has a world of its own unless ``num_agents`` is given.
        kwargs={"task": _task} | ({"num_agents": 1} if _task.endswith(":StatePunishment") else {}),
    )

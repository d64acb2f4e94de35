"""Memory tasks, vectorised in numpy. Importing this package registers them with Gymnasium.

`gymnasium.make("RecurrentPPO/TMaze-v0", length=30)` makes one copy, `gymnasium.make_vec("RecurrentPPO/TMaze-v0",
num_envs=64, length=30)` a vector environment; the classes can as well be constructed directly.
"""

import gymnasium

for _task in (
    "envs.t_maze:TMaze",
    "envs.delayed_recall:DelayedRecall",
    "envs.repeat_previous:RepeatPrevious",
    "envs.copy_sequence:CopySequence",
    "envs.bernoulli_bandit:BernoulliBandit",
    "envs.classic_control:CartPoleNoVelocity",
    "envs.classic_control:PendulumNoVelocity",
    "envs.classic_control:MountainCarContinuousNoVelocity",
    "envs.witness_vote:WitnessVote",
    "envs.memory_grid:MemoryGrid",
):
    gymnasium.register(
        f"RecurrentPPO/{_task.split(':')[1]}-v0",
        entry_point="envs.single_env:SingleEnv",
        vector_entry_point="envs.single_env:make_batched",
        kwargs={"task": _task},
    )

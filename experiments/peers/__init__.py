"""Train this project and other programs, each in a process of its own behind one small protocol, to measure speed.

``python -m experiments.peers.NAME --workload w1 --core lstm --threads 1`` builds a training run, warms it up and prints
one JSON line ``{"name", "versions", "parameters"}``. Then each line on its input, a number of seconds, makes it train
for at least that long, in whole iterations of rollout and update, and answer with one JSON line ``{"env_steps",
"episodes", "wall_seconds", "cpu_seconds"}``. It ends with its input. Nothing else comes out on standard output.

A measuring program starts several of them and asks them in turn, so that a slow moment of the machine hits all alike;
while one trains the others wait for input and take no time.

Others may use ``recurrent_ppo.make_training``, ``serve.repeat`` and ``workloads``.

- ``serve``: the protocol. ``workloads``: what is trained, and the arguments that all have.
- ``recurrent_ppo``: this project. ``sb3_contrib``, ``skrl``, ``purejaxrl``: peers; each docstring says how to install
  the peer, what was matched and what could not be. ``sb3_threshold``: no worker, it trains until a task is solved;
  ``sb3_tasks``: none either, it trains one task for so many steps, for ``experiments.memory_suite`` and
  ``experiments.memory_ladder``.

This module imports nothing, so that a peer's own environment without torch or Hydra can run its worker.
"""

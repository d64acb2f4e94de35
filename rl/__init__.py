"""Recurrent PPO in plain Python and torch: agents, cores, networks, buffer, update, trainer. See ``rl.types`` first."""

"""Tasks of POPGym (Morad et al., "POPGym: Benchmarking partially observable reinforcement learning", 2023).

They have POPGym 1.0.7's spaces, rewards and ends, step by step; only the random draws are others. ``level`` is "easy",
"medium" or "hard" as there. What a space is coded as here, where it is not POPGym's own, stands in the docstring.
"""

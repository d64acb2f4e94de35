"""Character models on the cores of the agents: ``python -m experiments.char_lm``."""

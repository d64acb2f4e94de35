"""The commands. Only these modules import Hydra; everything below them takes plain arguments."""

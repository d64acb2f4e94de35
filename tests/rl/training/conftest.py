"""Shared by the tests of training: an agent that notes what it is told."""

import numpy as np
import pytest
import torch


class Scribe:
    """An agent that learns nothing and notes what it is told: ``("act", counts)``, ``("observe", ...)``, ``("learn",
    counts)``, where counts is the first number of each observation.

    ``actions`` are played in turn, the same in all rows.
    """

    model_name, num_parameters, device, training = "Scribe", 0, torch.device("cpu"), True

    def __init__(self, num_envs, num_steps, actions=(0,)):
        self.num_envs, self.num_steps, self.actions = num_envs, num_steps, actions
        self.network = torch.nn.Linear(1, 1)
        self.env_steps, self.last_metrics, self.notes, self.steps = 0, {}, [], 0

    def act(self, observation):
        self.notes.append(("act", observation[:, 0].tolist()))
        self.steps += 1
        return np.full(self.num_envs, self.actions[(self.steps - 1) % len(self.actions)])

    def observe(self, rewards, terminated, truncated=False, final_observation=None, ignored=False):
        final = None if final_observation is None else final_observation[:, 0][truncated].tolist()
        flags = [np.flatnonzero(flag).tolist() for flag in (terminated, truncated, ignored)]
        self.notes.append(("observe", rewards.tolist(), *flags, final))

    def learn(self, next_observation=None):
        self.notes.append(("learn", next_observation[:, 0].tolist()))
        self.env_steps += self.num_steps * self.num_envs
        self.last_metrics = {"policy_loss": float(self.env_steps)}
        return 0.0

    def reset(self):
        self.notes.append(("reset",))

    def state_dict(self):
        return {"env_steps": self.env_steps}

    def load_state_dict(self, state):
        self.env_steps = state["env_steps"]

    def said(self, word):
        return [note[1:] for note in self.notes if note[0] == word]


@pytest.fixture
def scribe():
    return Scribe

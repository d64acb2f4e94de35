"""Give an agent a memory of your own: a module with the four members of ``rl.types.Core``.

python examples/own_core.py
"""

from functools import partial

import torch
from torch import Tensor, nn

from envs.delayed_recall import DelayedRecall
from rl import RecurrentPPO, evaluate
from rl.types import State


class Decay(nn.Module):
    """A memory of leaky sums: each unit forgets at a rate of its own, which is learned.

    Args:
        input_size: number of features that come in.
        hidden_size: number of units.
    """

    def __init__(self, input_size: int, hidden_size: int = 64):
        super().__init__()
        self.output_size = hidden_size
        self.write = nn.Linear(input_size, hidden_size)
        self.gate = nn.Linear(input_size, hidden_size)
        self.keep = nn.Parameter(torch.linspace(0.0, 6.0, hidden_size))

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories: any dict of tensors ``[B, ...]``."""
        return {"sum": torch.zeros(batch_size, self.output_size, device=device)}

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Take one step: ``x [B, D]`` -> output ``[B, H]`` and the next state; cleared where ``starts [B]``."""
        before = state["sum"] if starts is None else state["sum"].masked_fill(starts.unsqueeze(1), 0.0)
        written = torch.sigmoid(self.gate(x)) * self.write(x)
        after = torch.sigmoid(self.keep) * before + written
        return torch.tanh(after), {"sum": after}

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run a sequence: ``x [T, B, D]``, ``starts [T, B]`` -> outputs ``[T, B, H]`` and the last state."""
        outputs = []
        for row, opens in zip(x.unbind(0), starts.to(x.device).unbind(0), strict=True):
            output, state = self.step(row, state, opens)
            outputs.append(output)
        return torch.stack(outputs), state


def main(total_steps: int = 60_000) -> float:
    """Train with this memory, and return the mean return of greedy play."""
    envs = DelayedRecall(num_envs=64, delay=3)
    agent = RecurrentPPO(
        envs.single_observation_space,
        envs.single_action_space,
        core=partial(Decay, hidden_size=32),  # called with the number of features
        num_envs=64,
        num_steps=16,
        bptt=16,
        learning_rate=1e-2,
        seed=1,
    )
    obs, _ = envs.reset(seed=1)
    while agent.env_steps < total_steps:
        for _ in range(agent.num_steps):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        agent.learn(obs)
    played = evaluate(agent, DelayedRecall(num_envs=50, delay=3), episodes=200, seed=2)
    print(f"return {played.mean:.3f}; a guess gets 0, a perfect memory 1")
    return played.mean


if __name__ == "__main__":
    main()

"""Add a term to the loss: one method, ``loss``, of a subclass of ``PPO``, and an agent that names it.

python examples/own_loss.py
"""

from dataclasses import dataclass

from torch import Tensor

from envs.t_maze import TMaze
from rl import RecurrentPPO, evaluate
from rl.networks import ActorCritic
from rl.ppo import PPO
from rl.ppo.losses import Coefficients
from rl.ppo.teacher import Teacher
from rl.types import Sequences


@dataclass(kw_only=True)
class CalmPPO(PPO):
    """PPO that keeps the logits small, so that the policy does not become certain too early.

    Args:
        logit_coef: weight of the mean square of the logits.
    """

    logit_coef: float = 0.01

    def loss(
        self, network: ActorCritic, mb: Sequences, now: Coefficients, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the term to the loss, and to the metrics: it appears as ``losses/logit_square`` in TensorBoard."""
        loss, metrics = super().loss(network, mb, now, teacher)
        logits, _, _ = network.unroll(mb.obs, mb.state, mb.starts)  # [L, N, P]; this replays the sequences once more
        logit_square = logits.square().mean()
        return loss + self.logit_coef * logit_square, metrics | {"logit_square": logit_square.detach()}


class CalmAgent(RecurrentPPO):
    """Recurrent PPO with that loss; ``logit_coef`` is one more of its arguments."""

    algorithm = CalmPPO


def main(total_steps: int = 60_000, logit_coef: float = 0.01) -> tuple[float, float]:
    """Train with this loss; return the mean return of greedy play and the mean square of the logits."""
    envs = TMaze(num_envs=64, length=5)
    agent = CalmAgent(
        envs.single_observation_space,
        envs.single_action_space,
        num_envs=64,
        num_steps=32,
        bptt=32,
        learning_rate=3e-3,
        logit_coef=logit_coef,
        seed=1,
    )
    obs, _ = envs.reset(seed=1)
    while agent.env_steps < total_steps:
        for _ in range(agent.num_steps):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        agent.learn(obs)
    played = evaluate(agent, TMaze(num_envs=50, length=5), episodes=200, seed=2)
    logit_square = agent.last_metrics["logit_square"]
    print(f"return {played.mean:.3f}, mean square of the logits {logit_square:.3f}")
    return played.mean, logit_square


if __name__ == "__main__":
    main()

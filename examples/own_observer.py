"""Watch a run with a class of your own: three methods, which are told and never asked.

python examples/own_observer.py
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.t_maze import TMaze
from rl import RecurrentPPOLSTM, Trainer
from rl.training import Metrics
from rl.training.observers import CSV, Run


class Best:
    """Keeps the highest return of the training episodes of a rollout, and the step that it was reached at."""

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """Forget what was."""
        self.value, self.step = float("-inf"), 0

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Compare; a rollout in which no episode has ended has no return."""
        value = values.get("charts/episodic_return", self.value)
        if value > self.value:
            self.value, self.step = value, step

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Say what was found."""
        print(f"the best rollout returned {self.value:.2f} and ended at step {self.step}")


def main(run_dir: str = "runs/watched", total_steps: int = 20_000) -> float:
    """Train with two observers; return the best return that was seen."""
    envs, best = TMaze(num_envs=16, length=2), Best()
    agent = RecurrentPPOLSTM(
        envs.single_observation_space,
        envs.single_action_space,
        num_envs=16,
        num_steps=32,
        total_steps=total_steps,
        seed=1,
    )
    trainer = Trainer(agent, envs, Path(run_dir), total_steps, seed=1)
    with Metrics(Path(run_dir), total_steps, observers={"csv": CSV(), "best": best}) as metrics:
        metrics.observers.begin(trainer, {"seed": 1})
        trainer.train(metrics)
    return best.value


if __name__ == "__main__":
    main()

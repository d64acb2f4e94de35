"""Measure how long one decision takes: an observation in, an action of many heads out, one environment, one thread.

python -m experiments.realtime cores=[gru,mamba] steps=2000

A decision is what ``experiments.tables.latency.time_steps`` times, of an agent that plays without learning. All
cores take turns in blocks of steps, so that what else the machine does hits them alike. Each core has two agents: one
late in a long episode, one early in it. ``window`` is the time to run a window of frames again from the initial state
instead of carrying a state.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from omegaconf import DictConfig, OmegaConf

from experiments.launch.check import choose_names, construct, convert, prepare_output, to_dict
from experiments.launch.command import launch
from experiments.tables.latency import BLOCK, EARLY_STEP, time_steps, use_one_thread
from rl import cores
from rl.agents import RecurrentPPO
from rl.checkpoint import write_text
from rl.checks import positive, within

HEADS = [2] * 8 + [17] * 4 + [5]  # buttons, two sticks, shoulder
SIZES = ("steps", "late_step", "window", "input_size", "layer_size", "hidden_size", "num_layers")


@dataclass
class Contender:
    """A core with its two agents and what was measured, in seconds."""

    name: str
    early: RecurrentPPO
    late: RecurrentPPO
    early_seconds: list[float] = field(default_factory=list)
    late_seconds: list[float] = field(default_factory=list)
    window_seconds: list[float] = field(default_factory=list)

    def summarise(self, frame_ms: float) -> dict[str, Any]:
        """Return what is reported of the core; a decision is missed that takes more than ``frame_ms`` milliseconds."""
        p50, p99 = np.percentile(self.early_seconds, (50, 99)) * 1e3
        late, window = (float(np.median(part)) * 1e3 for part in (self.late_seconds, self.window_seconds))
        state = self.early.actor.state.values()
        return {
            "core": self.name,
            "parameters": self.early.num_parameters,
            "state_numbers": sum(leaf.numel() for leaf in state),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "missed_share": float(np.mean(np.array(self.early_seconds) * 1e3 > frame_ms)),
            "late_p50_ms": late,
            "late_over_early": late / float(p50),
            "window_p50_ms": window,
            "window_over_step": window / float(p50),
        }


def run(config: DictConfig) -> float:
    """Print a table and write it as JSON.

    Returns:
        The largest median of a step, in milliseconds.
    """
    sizes = {name: convert(config[name], int, name) for name in SIZES}
    positive(**sizes)
    frame_ms, seed = convert(config.frame_ms, float, "frame_ms"), convert(config.seed, int, "seed")
    within(0, 2**31, seed=seed)
    chosen = cores.__all__ if config.cores is None else config.cores
    names = choose_names(chosen, cores.__all__, "cores", "core")
    if config.options:
        choose_names(config.options, cores.__all__, "options", "core")
    output = prepare_output(convert(config.output, str, "output"), "output")
    with use_one_thread():
        contenders = [make_contender(name, config, sizes, seed) for name in names]
        frames = np.random.default_rng(seed).normal(size=(1000 + sizes["window"], sizes["input_size"]))
        measure(contenders, frames.astype(np.float32), sizes)
    rows = [each.summarise(frame_ms) for each in contenders]
    print_table(rows, frame_ms, sizes)
    settings = sizes | {"frame_ms": frame_ms, "early_step": EARLY_STEP, "heads": HEADS, "torch": torch.__version__}
    write_text(output, json.dumps({"settings": settings, "rows": rows}, indent=1))
    return max(row["p50_ms"] for row in rows)


def make_contender(name: str, config: DictConfig, sizes: dict[str, int], seed: int) -> Contender:
    """Build two playing agents of the same weights around a core."""
    shared = {key: sizes[key] for key in ("hidden_size", "num_layers")}
    own = (to_dict(config.options).get(name) if config.options else None) or {}
    node = {"_target_": f"rl.cores.{name}", "_partial_": True} | shared | own
    core, _ = construct(OmegaConf.create(node), f"options.{name}")
    space = spaces.Box(-np.inf, np.inf, (sizes["input_size"],))
    agents = [RecurrentPPO(space, spaces.MultiDiscrete(HEADS), sizes["layer_size"], seed=seed, core=core) for _ in "ab"]
    for agent in agents:
        agent.training = False
    early, late = agents
    return Contender(name, early, late)


def measure(contenders: list[Contender], frames: np.ndarray, sizes: dict[str, int]) -> None:
    """Bring every agent to its step, then time all of them in turns.

    Args:
        contenders: get the seconds.
        frames: ``[F, D]`` observations.
        sizes: the steps to time, the step of the late agents, the window.
    """
    for each in contenders:
        time_steps(each.early, frames, EARLY_STEP)
        time_steps(each.late, frames, sizes["late_step"])
        time_window(each.early, frames[: sizes["window"]])
    for first in range(0, sizes["steps"], BLOCK):
        count = min(BLOCK, sizes["steps"] - first)
        for each in contenders:
            each.early_seconds += time_steps(each.early, frames, count)
            each.late_seconds += time_steps(each.late, frames, count)
            each.window_seconds.append(time_window(each.early, np.roll(frames, first, axis=0)[: sizes["window"]]))


@torch.inference_mode()
def time_window(agent: RecurrentPPO, window: np.ndarray) -> float:
    """Return the seconds of a step without a state: ``window [W, D]`` from the first state to the last action."""
    network = agent.network
    starts = torch.zeros(len(window), 1, dtype=torch.bool)
    begin = time.perf_counter()
    obs = {"obs": torch.from_numpy(window).unsqueeze(1)}  # [W, 1, D]
    params, _, _ = network.unroll(obs, network.initial_state(1), starts)
    network.head.to_environment(network.head.mode(params[-1]).numpy())
    return time.perf_counter() - begin


def print_table(rows: list[dict[str, Any]], frame_ms: float, sizes: dict[str, int]) -> None:
    """Print one line for each core."""
    print(f"one step, milliseconds; {sizes['steps']} steps of each core in turns, one thread\n")
    print(
        f"{'core':<10}{'parameters':>11}{'state':>9}{'p50':>8}{'p99':>8}{f'> {frame_ms:g}':>9}"
        f"{'step ' + str(sizes['late_step']):>13}{'/ early':>9}{'window ' + str(sizes['window']):>11}{'/ step':>8}"
    )
    for row in rows:
        print(
            f"{row['core']:<10}{row['parameters']:>11,}{row['state_numbers']:>9,}{row['p50_ms']:>8.2f}"
            f"{row['p99_ms']:>8.2f}{row['missed_share']:>9.2%}{row['late_p50_ms']:>13.2f}"
            f"{row['late_over_early']:>9.2f}{row['window_p50_ms']:>11.2f}{row['window_over_step']:>8.1f}"
        )


def main() -> None:
    """Run the command."""
    launch(run, "realtime")


if __name__ == "__main__":
    main()

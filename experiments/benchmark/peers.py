"""Rows beside other programs: whole training on the same workloads, and the time until a task is solved."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from experiments.benchmark.rows import Numbers, Process, Row
from experiments.launch.check import ConfigError
from experiments.launch.run_folder import read_result

OURS = "recurrent_ppo"
LENGTHS = {"whole rollout": "128", "sequences of 8": "8"}  # beside 16: PureJaxRL's own and a GRU's best
EVALUATE_EVERY = 2048  # steps: whole rollouts of either side, so that neither is found out later than the other
CARTPOLE = ["experiment=cartpole_no_velocity", f"evaluate_every={EVALUATE_EVERY}"]
TASKS = {
    "CartPole without velocities, LSTM": CARTPOLE,
    "CartPole without velocities, GRU": [*CARTPOLE, "agent/core=gru", "agent.epochs=20"],
    "T-maze L=30": ["experiment=t_maze_30"],
}


def make_rows(
    seconds: float, workloads: list[str], cores: list[str], purejaxrl: str | None, jax_python: str
) -> list[Row]:
    """Start this project and every peer on each workload: with one thread and, where that can be set, with two.

    Args:
        seconds: of each measurement.
        workloads: names, see ``experiments.peers.workloads``.
        cores: names of cores.
        purejaxrl: a checkout of PureJaxRL, None to leave it out.
        jax_python: the interpreter of an environment that can run it.

    Raises:
        ConfigError: a peer is not installed.
    """
    require("sb3_contrib", "skrl")
    rows = []
    for workload in workloads:
        for core in cores:
            place = f"{workload} {core}"
            at = ["--workload", workload, "--core", core]
            for threads in ("1", "2"):
                both = "" if threads == "1" else ", 2 threads"
                rows.append(make_row(f"{place} {OURS}{both}", OURS, [*at, "--threads", threads], seconds))
                rows.append(make_row(f"{place} skrl{both}", "skrl", [*at, "--threads", threads], seconds))
                if core == "lstm":  # sb3-contrib has no other core
                    name = f"{place} sb3_contrib{both}"
                    rows.append(make_row(name, "sb3_contrib", [*at, "--threads", threads], seconds))
            padded = [*at, "--variant", "padded"]
            rows.append(make_row(f"{place} skrl, padded", "skrl", padded, seconds))
            if core == "lstm":
                shared = [*at, "--variant", "shared"]
                rows.append(make_row(f"{place} sb3_contrib, one LSTM", "sb3_contrib", shared, seconds))
            if purejaxrl and workload == "w1":
                for what, length in LENGTHS.items():
                    rows.append(make_row(f"{place} {OURS}, {what}", OURS, [*at, "--bptt", length], seconds))
                checkout = [*at, "--checkout", purejaxrl]
                rows.append(make_row(f"{place} purejaxrl", "purejaxrl", checkout, seconds, jax_python))
    return rows


def require(*packages: str) -> None:
    """Check that packages are installed.

    Raises:
        ConfigError: one is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"peers: {package} is not installed: pip install 'recurrent-ppo[bench]'")


def make_row(label: str, module: str, arguments: list[str], seconds: float, python: str = sys.executable) -> Row:
    """Start a process and return its row.

    Args:
        label: of the row.
        module: of ``experiments.peers``.
        arguments: of its command line.
        seconds: of a measurement.
        python: the interpreter.
    """
    process = Process(module, arguments, python)
    return Row(label, lambda _round: process.measure(seconds), process.close)


def compute_ratios(medians: dict[str, Numbers]) -> dict[str, Numbers]:
    """Compare this project with each peer: per CPU second with one thread each, by the clock with the best of each.

    Variants of a peer (``, padded``, ``, one LSTM``) count as peers; a row with two threads is only a setting of one.

    Args:
        medians: of every row by label, ``WORKLOAD CORE PROGRAM``.

    Returns:
        The ratios by label, ``WORKLOAD CORE / PEER``.
    """
    found = {}
    for label in medians:
        workload, core, name = label.split(" ", 2)
        if name.startswith(OURS) or name.endswith("2 threads"):
            continue
        own = f"{workload} {core} {OURS}"
        for setting in ("", *(f", {what}" for what in LENGTHS)):
            if f"{own}{setting}" in medians and not (setting and name != "purejaxrl"):
                found[f"{workload} {core} / {name}{setting}"] = compare(medians, f"{own}{setting}", label)
    for workload in dict.fromkeys(label.split(" ")[0] for label in medians):
        # sb3-contrib has no GRU: its LSTM is what a GRU replaces
        own, peer = f"{workload} gru {OURS}", f"{workload} lstm sb3_contrib"
        if own in medians and peer in medians:
            found[f"{workload} gru / sb3_contrib (LSTM)"] = compare(medians, own, peer)
    return found


def compare(medians: dict[str, Numbers], own: str, peer: str) -> Numbers:
    """Return how many times faster the row ``own`` is than the row ``peer``."""

    def find_best(label: str) -> float:
        return max(medians[name]["steps_per_second"] for name in (label, f"{label}, 2 threads") if name in medians)

    own_speed, peer_speed = (medians[label]["steps_per_cpu_second"] for label in (own, peer))
    return {"per_cpu_second": own_speed / peer_speed, "by_the_clock": find_best(own) / find_best(peer)}


def make_threshold_rows() -> list[Row]:
    """Return rows of the seconds from the start of a process to the evaluation that reaches a threshold.

    Each round is a run with a seed of its own.
    """
    rows = [Row(label, partial(solve, task)) for label, task in TASKS.items()]
    if importlib.util.find_spec("sb3_contrib") is not None:
        rows.append(Row("CartPole without velocities, sb3_contrib tuned", solve_with_sb3))
    return rows


def solve(task: list[str], round: int) -> Numbers:
    """Run a preset, with what differs from it, until its threshold."""
    seconds, result = train([*task, "stop_at_threshold=true"], round)
    return {"seconds": seconds, "env_steps": result["env_steps"], "eval_return": result["eval_return_mean"]}


def solve_with_sb3(round: int) -> Numbers:
    """Do the same with sb3-contrib and the settings of its zoo."""
    seconds, result = ask("sb3_threshold", ["--evaluate-every", str(EVALUATE_EVERY)], round)
    return {"seconds": seconds, "env_steps": result["env_steps"], "eval_return": result["eval_return"]}


def train(overrides: list[str], round: int) -> tuple[float, dict[str, Any]]:
    """Train in a process and a folder of its own; return the seconds from its start and its result."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*overrides, f"seed={round + 1}", f"run_dir={folder}/run"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "experiments.train", *arguments], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        return seconds, read_result(Path(folder, "run"))


def ask(module: str, arguments: list[str], round: int) -> tuple[float, dict[str, Any]]:
    """Run a module of ``experiments.peers`` that is asked once; return its seconds and the JSON of its last line."""
    command = [sys.executable, "-m", f"experiments.peers.{module}", "--seed", str(round + 1), *arguments]
    began = time.perf_counter()
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - began
    return seconds, json.loads(printed.strip().splitlines()[-1])

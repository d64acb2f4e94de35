"""Check and measure a device in a few minutes: is it exact there, what does it wait for, how fast is it?

python -m experiments.device_check device=cuda                       # all sections, eight minutes at most
python -m experiments.device_check sections=[replay,parity] cores=[gru,lstm] device=cpu

Each section is fenced: what fails in one is told in its line, and the next one begins. The file is written after each.
One bound that is not kept makes the exit code 1.
"""

import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from experiments.device_check import exactness, learning, speed
from experiments.device_check.findings import Finding
from experiments.device_check.suite import run_suite
from experiments.launch.check import choose_names, convert, prepare_output
from experiments.launch.command import launch
from rl import cores
from rl.agents.loading import check_device
from rl.checkpoint import write_text
from rl.checks import positive, within


@dataclass(frozen=True)
class Settings:
    """The keys of ``device_check.yaml``, which says what they mean."""

    device: str
    sections: list[str]
    cores: list[str]
    seconds: float
    budget: float
    threads: int
    output: Path


SECTIONS: dict[str, Callable[[Settings, float], Iterator[Finding]]] = {  # given the seconds that are left
    "replay": lambda s, left: exactness.check_replay(s.device, s.cores),
    "parity": lambda s, left: exactness.check_parity(s.device, s.cores),
    "checkpoints": lambda s, left: exactness.check_checkpoints(s.device, s.cores),
    "waits": lambda s, left: speed.count_waits(s.device, s.cores),
    "kernels": lambda s, left: speed.measure_kernels(s.device, s.cores),
    "training": lambda s, left: speed.measure_training(s.device, s.cores, s.seconds),
    "batches": lambda s, left: speed.measure_few_minibatches(s.device, s.cores, s.seconds),
    "learning": lambda s, left: learning.measure_learning(s.device, [name for name in s.cores if name != "mlp"]),
    "tests": lambda s, left: run_suite(s.device, left),
}


class DeviceCheckFailedError(RuntimeError):
    """A bound that was not kept, or a section that ended with an error."""


def run(config: DictConfig) -> float:
    """Check, measure, print, write.

    Returns:
        How many lines kept their bounds.

    Raises:
        DeviceCheckFailedError: at least one did not.
    """
    settings = read_settings(config)
    torch.set_num_threads(settings.threads)
    report = describe_machine(settings.device)
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    found: dict[str, list[Finding]] = {}
    ends = time.monotonic() + settings.budget
    for name in settings.sections:
        found[name] = []
        for finding in fenced(SECTIONS[name](settings, ends - time.monotonic()), ends):
            found[name].append(finding)
            print(describe(name, finding), flush=True)
        content = {
            section: [asdict(each) | {"passed": each.passed} for each in part] for section, part in found.items()
        }
        write_text(settings.output, json.dumps(report | {"sections": content}, indent=1))
    findings = [finding for part in found.values() for finding in part]
    failed = [finding for finding in findings if finding.passed is False]
    passed = sum(finding.passed is True for finding in findings)
    print(f"\n{passed} passed, {len(failed)} failed, {len(findings) - passed - len(failed)} measured")
    if failed:
        raise DeviceCheckFailedError(f"{len(failed)} of {len(findings)} lines failed, the first one: {failed[0].label}")
    return float(passed)


def read_settings(config: DictConfig) -> Settings:
    """Read the keys of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type, or not known.
    """
    threads = convert(config.threads, int, "threads")
    positive(threads=threads)
    seconds, budget = (convert(config[name], float, name) for name in ("seconds", "budget"))
    within(0.01, float("inf"), seconds=seconds, budget=budget)
    device = convert(config.device, str, "device")
    check_device(device)
    return Settings(
        device=device,
        sections=choose_names(config.sections, SECTIONS, "sections", "section"),
        cores=choose_names(config.cores or cores.__all__, cores.__all__, "cores", "core"),
        seconds=seconds,
        budget=budget,
        threads=threads,
        output=prepare_output(config.output, "output"),
    )


def describe_machine(device: str) -> dict[str, Any]:
    """Return what a figure must be read with: the date, the card, the versions."""
    report = {"date": date.today().isoformat(), "device": device}
    if torch.device(device).type == "cuda":
        report |= {"card": torch.cuda.get_device_name(device), "CUDA": torch.version.cuda or ""}
        report["cuDNN"] = str(torch.backends.cudnn.version())
    return report | {"torch": version("torch"), "Python": platform.python_version()}


def fenced(section: Iterator[Finding], ends: float) -> Iterator[Finding]:
    """Yield the lines of a section; an error becomes its last one, as does the end of the time."""
    while True:
        if time.monotonic() > ends:
            yield Finding("out of time", note="the rest of this section was left out")
            return
        try:
            yield next(section)
        except StopIteration:
            return
        except Exception as error:  # what fails on a device that nothing ran on before has no common base
            text = str(error).strip().partition("\n")[0]
            yield Finding("stopped", note=f"{type(error).__name__}: {text}", failed=True)
            return


def describe(section: str, finding: Finding) -> str:
    """Write one line of the report."""
    label = {True: "PASS", False: "FAIL", None: "    "}[finding.passed]
    numbers = ", ".join(f"{name} {number:.4g}" for name, number in finding.numbers.items())
    parts = [numbers, *finding.broken, finding.note]
    return f"{label}  {section:<12}{finding.label:<34}" + "; ".join(part for part in parts if part)


def main() -> None:
    """Run the command."""
    launch(run, "device_check")


if __name__ == "__main__":
    main()

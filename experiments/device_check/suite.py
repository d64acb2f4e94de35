"""The tests of the project that can choose a device."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.device_check.findings import Finding

ROOT = Path(__file__).parents[2]


def run_suite(device: str, timeout: float) -> Iterator[Finding]:
    """Run them on ``device`` in a process of its own; the line says how it ended, and names what failed."""
    if not (ROOT / "tests").is_dir():
        yield Finding("pytest", note="there are no tests beside this package: take a checkout of the repository")
        return
    kind = device.partition(":")[0]
    workers = str(min(8, os.cpu_count() or 1))
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--device", kind]
    command += ["-p", "no:benchmark", str(ROOT / "tests")]  # that plugin warns beside several workers
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    except subprocess.TimeoutExpired:
        yield Finding("pytest", note=f"did not end within {timeout:.0f} s", failed=True)
        return
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["it said nothing"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield Finding(
        "pytest", {"failed": float(len(failed))}, note="; ".join([lines[-1], *failed]), failed=done.returncode != 0
    )

"""Shared by all tests."""

import logging
import os
import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

DEVICES = "cpu", "cuda", "shadow"

HERE = Path(__file__).parent
WHOLE_PROCESSES = (  # most of the time that all tests take; what they run has tests of its own that are not slow
    "experiments/benchmark/",
    "experiments/char_lm/",
    "experiments/device_check/",
    "experiments/launch/test_paths.py",
    "experiments/peers/",
    "experiments/reliability/",
    "experiments/sweeps/test_search.py",
    "experiments/tables/",
    "experiments/test_adding_things.py",
    "experiments/test_bad_input.py",
    "experiments/test_card.py",
    "experiments/test_check_memory.py",
    "experiments/test_environments_of_users.py",
    "experiments/test_evaluation_costs.py",
    "experiments/test_export.py",
    "experiments/test_from_sb3.py",
    "experiments/test_plot.py",
    "experiments/test_population.py",
    "experiments/test_train_folders.py",
    "experiments/test_train_jobs.py",
    "experiments/test_train_observers.py",
    "experiments/test_train_processes.py",
    "experiments/test_train_ranks.py",
    "experiments/test_train_resuming.py",
    "experiments/test_watch.py",
    "rl/cores/kernels/test_compile.py",
    "rl/cores/kernels/test_kernels.py",
    "test_conf.py",
    "test_examples.py",
)
"""Tests that start commands one after the other, or compile: run with -m slow, by CI always."""


def pytest_addoption(parser):
    parser.addoption("--device", choices=DEVICES, help="run the tests that can choose a device, on this one alone")


def pytest_configure(config):
    """Let kernels run without a GPU, and claim the device that is not there, in every process that runs tests."""
    if config.getoption("device") != "cuda":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    if config.getoption("device") == "shadow":
        from tests import shadow

        if not shadow.is_possible:
            raise pytest.UsageError(f"--device=shadow: torch {torch.__version__} cannot have one, a newer one can")
        config.shadow = shadow.ShadowDevice()


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        asked = metafunc.config.getoption("device")
        metafunc.parametrize("device", [asked] if asked else ["cpu", "cuda"], indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("device"):
        others = [item for item in items if "device" not in item.fixturenames]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "device" in item.fixturenames]
        return
    for item in items:
        if item.path.relative_to(HERE).as_posix().startswith(WHOLE_PROCESSES):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def shadow(request):
    """What the device that is not there noted since the test began."""
    made = getattr(request.config, "shadow", None)
    if made is None:
        pytest.skip("needs --device=shadow")
    made.reads.clear()
    made.uploads.clear()
    return made


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A command that runs inside a test leaves handlers behind, which would write to the closed output of that test."""
    root = logging.getLogger()
    before = [*root.handlers]
    yield
    root.handlers[:] = before


@pytest.fixture
def hangup_ends():
    """SIGHUP ends a process, as usual, also where ``nohup`` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def randomise():
    """Draws every parameter anew: biases start at zero and the policy almost so, which would hide errors in them."""

    def draw(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                size = parameter[0].numel() if parameter.dim() > 1 else 1
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / size**0.5)
        return module

    return draw

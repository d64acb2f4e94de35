"""The protocol of the workers."""

import json

import pytest

from experiments.peers import serve

TOY = """
import os
print("noise of an import")
from experiments.peers.serve import Worker, repeat, serve

def iteration():
    print("noise of a library")
    os.system("echo noise of a child")
    return 8, 3

def build():
    print("noise of the warm-up")
    return Worker("toy", {"toy": "1.0"}, 5, lambda seconds: repeat(iteration, seconds))

serve(build)
"""


def test_protocol(python):
    """Ready, then one answer for each line; whatever else is printed goes elsewhere."""
    ended = python(["-c", TOY], "1e-6\n0.02\n")
    noise, hello, *answers = ended.stdout.splitlines()
    assert (ended.returncode, noise) == (0, "noise of an import")  # before the protocol took hold
    assert json.loads(hello) == {"name": "toy", "versions": {"toy": "1.0"}, "parameters": 5}
    once, often = map(json.loads, answers)
    assert once.keys() == {"env_steps", "episodes", "wall_seconds", "cpu_seconds"}
    assert (once["env_steps"], once["episodes"]) == (8, 3)
    assert often["env_steps"] > 8 and often["env_steps"] * 3 == often["episodes"] * 8
    assert often["wall_seconds"] >= 0.02 > once["cpu_seconds"] >= 0.0
    assert {"noise of the warm-up", "noise of a library", "noise of a child"} <= set(ended.stderr.splitlines())


@pytest.mark.parametrize("line", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_line_that_is_no_time_is_refused(line):
    with pytest.raises(ValueError, match="must be a positive number of seconds"):
        serve.read_seconds(line)


def test_protocol_needs_the_standard_library_only(python):
    program = (
        "import sys; before = set(sys.modules); import experiments.peers.purejaxrl;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    assert python(["-c", program], "").stdout == "['experiments']\n"

"""This project as a worker."""

import json

import pytest

from experiments.peers import recurrent_ppo, workloads


def test_this_project_end_to_end(python):
    ended = python(["-m", "experiments.peers.recurrent_ppo", "--core", "gru"], "0.01\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    hello, answer = map(json.loads, ended.stdout.splitlines())
    assert hello["name"] == "recurrent_ppo" and hello["parameters"] == 91395
    assert answer["env_steps"] == 2048 and 0 < answer["episodes"] < 400


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_this_project(tiny_workload, check_worker, core):
    arguments = workloads.make_parser(None).parse_args(["--workload", tiny_workload, "--core", core, "--bptt", "8"])
    check_worker(recurrent_ppo.build(arguments))

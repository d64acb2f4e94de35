"""sb3-contrib as a worker, where it is installed."""

import numpy as np
import pytest

from envs.classic_control import CartPoleNoVelocity
from experiments.peers import workloads

pytest.importorskip("sb3_contrib")


@pytest.mark.parametrize("variant", ["separate", "shared"])
def test_sb3_contrib(tiny_workload, check_worker, variant):
    from experiments.peers import sb3_contrib

    arguments = workloads.make_parser(None, whole_rollouts=True).parse_args(["--workload", tiny_workload])
    arguments.variant = variant
    check_worker(sb3_contrib.build(arguments))


def test_sb3_contrib_sees_ends_as_the_library_tells_them():
    from experiments.peers.sb3_contrib import BatchedVecEnv

    own = CartPoleNoVelocity(3)
    env = BatchedVecEnv(own)
    env.seed(1)
    first = env.reset()
    own.elapsed_steps[0] = 499  # cut in the next step
    own.state[0, 1] = 3.0  # outside, so terminated in the next step
    obs, rewards, ended, infos = env.step(np.array([0, 1, 0]))
    assert ended.tolist() == [True, True, False] and rewards.dtype == np.float32 and infos[2] == {}
    assert [info["TimeLimit.truncated"] for info in infos[:2]] == [True, False]
    assert infos[1]["terminal_observation"][0] == pytest.approx(3.0, abs=0.1) and abs(obs[1, 0]) < 0.1
    assert np.abs(infos[0]["terminal_observation"] - first[0]).max() < 0.1


def test_sb3_contrib_has_no_gru(capsys):
    from experiments.peers import sb3_contrib

    with pytest.raises(SystemExit):
        sb3_contrib.main(["--core", "gru"])
    assert "--core gru cannot be measured" in capsys.readouterr().err

"""Check the memory of an agent of sb3-contrib.

pip install 'recurrent-ppo[bench]'
python examples/check_sb3.py
"""

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

import rl


def main() -> list[str]:
    """Print what is found, and return the names of the checks that failed."""
    envs = make_vec_env("CartPole-v1", n_envs=4)
    model = RecurrentPPO("MlpLstmPolicy", envs, seed=1, device="cpu")
    verdicts = rl.check_memory_of_sb3(model)
    print(*verdicts, sep="\n")
    return [verdict.check for verdict in verdicts if verdict.passed is False]


if __name__ == "__main__":
    main()

"""Bad input of every kind ends in one sentence and an exit code, before any training."""

import hashlib
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.training.trainer import Trainer

OBSERVATIONS = {"vector": spaces.Box(-1.0, 1.0, (2,), np.float32), "graph": spaces.Graph(spaces.Box(-1, 1), None)}
ACTIONS = {"discrete": spaces.Discrete(2), "text": spaces.Text(3)}


class Unusual(gymnasium.Env):
    """Spaces that no agent can take, or a NaN at the eleventh step."""

    def __init__(self, observations="vector", actions="discrete", nan_in=None):
        self.observation_space, self.action_space = OBSERVATIONS[observations], ACTIONS[actions]
        self.nan_in, self.steps = nan_in, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        bad = np.nan if self.steps == 11 else 0.0
        observation = np.full(2, bad if self.nan_in == "observations" else 0.0, np.float32)
        return observation, bad if self.nan_in == "rewards" else 1.0, self.steps % 3 == 0, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Unusual-v0", Unusual)
    yield
    del gymnasium.registry["Unusual-v0"]


@pytest.fixture
def no_training(monkeypatch):
    def collect(trainer):
        raise AssertionError("a rollout has begun")

    monkeypatch.setattr(Trainer, "collect", collect)


def assert_one_sentence(ended, *words):
    """Exit code 1, one line on stderr in which ``words`` stand."""
    assert ended.code == 1, ended
    assert ended.err.count("\n") == 1 and ended.err.endswith("\n"), ended.err
    assert "Traceback" not in ended.err and "object_type" not in ended.err
    for word in words:
        assert word in ended.err, (word, ended.err)


# What is added to a valid command line -> the words that the sentence must hold.
TRAINING = {
    # keys
    "totl_steps=8": ["'totl_steps'", "did you mean total_steps"],
    "agnt=recurrent_ppo_lstm": ["'agnt'", "did you mean agent"],
    "agnt.clip=0.1": ["'agnt'", "did you mean agent"],
    "xyz.of=1": ["'xyz'", "there are agent, checkpoint_every, device, env"],
    "agent.learning_rat=1e-3": ["'agent.learning_rat'", "did you mean learning_rate"],
    "agent.xyz=1": ["'agent.xyz'", "there are bptt, burn_in, clip, clip_final, clip_schedule"],
    "env.lenght=5": ["'env.lenght'", "did you mean length"],
    "agent.core.hidden_sise=5": ["'agent.core.hidden_sise'", "did you mean hidden_size"],
    "agent.seed=3": ["agent.seed", "leave it out"],
    "env.num_envs=3": ["env.num_envs", "leave it out"],
    "~seed": ["seed is missing"],
    "agent=recurrent_ppo_lst": ["there is no agent=recurrent_ppo_lst", "did you mean recurrent_ppo_lstm"],
    "agent/core=lsmt": ["there is no agent/core=lsmt", "did you mean lstm"],
    "env=t_mase": ["there is no env=t_mase", "did you mean t_maze"],
    "env=xyz": ["there is no env=xyz", "there are atari, autoencode, battleship"],
    "experiment=t_maze_11": ["there is no experiment=t_maze_11", "did you mean t_maze_10"],
    "agent=null": ["given by name", "env=t_maze"],
    "agent.core=mlp": ["agent.core='mlp'", "agent/core=NAME"],
    "agent._target_=rl.agents.Nobody": ["agent._target_=rl.agents.Nobody cannot be imported", "'Nobody'"],
    "env._target_=nowhere.Env": ["env._target_=nowhere.Env cannot be imported", "'nowhere'"],
    "env._target_=envs.t_maze": ["env._target_=envs.t_maze cannot be called"],
    "agent.learning_rate": ["agent.learning_rate"],  # no value
    # types
    "seed=abc": ["seed='abc' is not a whole number"],
    "num_envs=1.5": ["num_envs=1.5 is not a whole number"],
    "num_envs=true": ["num_envs=true is not a whole number"],
    "num_envs=[1,2]": ["num_envs=[1, 2] is not a whole number"],
    "num_envs=null": ["num_envs=null is not a whole number"],
    "device=3": ["device=3 is not a text"],
    "threshold=high": ["threshold='high' is not a number or null"],
    "stop_at_threshold=1": ["stop_at_threshold=1 is not true or false"],
    "agent.learning_rate=fast": ["agent.learning_rate='fast' is not a number"],
    "agent.learning_rate=null": ["agent.learning_rate=null is not a number"],
    "agent.learning_rate=[1e-3]": ["agent.learning_rate=[0.001] is not a number"],
    "agent.epochs=1.5": ["agent.epochs=1.5 is not a whole number"],
    "agent.epochs=true": ["agent.epochs=true is not a whole number"],
    "agent.clip_schedule=3": ["agent.clip_schedule=3 is not 'constant' or 'linear' or 'cosine'"],
    "agent.anneal_learning_rate=true": ["'agent.anneal_learning_rate'", "did you mean learning_rate"],
    "agent.core.hidden_size=big": ["agent.core.hidden_size='big' is not a whole number"],
    "env.length=1.5": ["env.length=1.5 is not a whole number"],
    # ranges
    "agent.learning_rate=-1": ["learning_rate=-1.0", "at least 1e-12"],
    "agent.learning_rate=nan": ["learning_rate=nan", "at least 1e-12"],
    "agent.gamma=1.2": ["gamma=1.2", "from 0 to 1"],
    "agent.gae_lambda=-0.1": ["gae_lambda=-0.1", "from 0 to 1"],
    "agent.clip=0": ["clip=0.0", "at least 1e-12"],
    "agent.target_kl=-1": ["target_kl=-1.0", "at least 0"],
    "agent.max_grad_norm=0": ["max_grad_norm=0.0", "at least 1e-12"],
    "agent.layer_size=0": ["layer_size=0", "at least 1"],
    "num_envs=0": ["num_envs=0", "at least 1"],
    "num_steps=0": ["num_steps=0", "at least 1"],
    "total_steps=0": ["total_steps=0", "at least 1"],
    "total_steps=-1": ["total_steps=-1", "at least 1"],
    "threads=0": ["threads=0: it must be a whole number of at least 1, or auto"],
    "threads=many": ["threads='many': it must be a whole number of at least 1, or auto"],
    "threads=1.5": ["threads=1.5: it must be a whole number of at least 1, or auto"],
    "threads=true": ["threads=True: it must be a whole number of at least 1, or auto"],
    "threads=null": ["threads=None: it must be a whole number of at least 1, or auto"],
    "final_episodes=-1": ["final_episodes=-1", "at least 0"],
    "evaluation_envs=-1": ["evaluation_envs=-1", "at least 0"],
    "evaluation_max_steps=0": ["evaluation_max_steps=0", "at least 1"],
    "evaluation_share=25": ["evaluation_share=25.0", "from 0 to 1"],
    "evaluate_memory_zeroed=1": ["evaluate_memory_zeroed=1 is not true or false"],
    "evaluate_every=0": ["evaluate_every=0", "at least 1"],
    "checkpoint_every=0": ["checkpoint_every=0", "at least 1"],
    "seed=-1": ["seed=-1", "from 0 to 2147483648"],
    "seed=1e20": ["seed=100000000000000000000", "from 0 to 2147483648"],
    "agent.core.dropout=1.5": ["dropout=1.5", "from 0 to 0.99"],
    "agent.core.dropout=0.2": ["dropout=0.2", "num_layers=1", "at least 2 layers"],
    "agent.core.hidden_size=0": ["hidden_size=0", "at least 1"],
    "agent.burn_in=5": ["burn_in=5", "from 0 to 4"],
    "agent.bptt=3": ["bptt=3", "num_steps=4"],
    "agent.num_minibatches=64": ["num_minibatches=64", "2 sequences"],
    "agent.state_stride=3": ["state_stride=3", "bptt=4"],
    "agent.burn_in=2 agent.refresh_states=true": ["burn_in and refresh_states"],
    "agent.ratio=foo": ["agent.ratio='foo'", "'joint' or 'per_head'"],
    # environments
    "env.length=0": ["length", "at least 1", "length=0: it must be a whole number of at least 1"],
    "env=gymnasium env.id=CartPol-v1": ["'CartPol-v1'", "CartPole-v1"],
    "env=gymnasium env.id=xyz:CartPole-v1": ["there is no module xyz"],
    "env=gymnasium env.id=null": ["env.id=null is not a text"],
    "env=gymnasium env.vectorization_mode=fast": ["'fast'", "one of 'sync', 'async', 'auto', 'vector_entry_point'"],
    "env=gymnasium env.wrappers=[nowhere.Wrapper]": ["'nowhere.Wrapper'", "No module named 'nowhere'"],
    "env=gymnasium env.wrappers=[gymnasium.wrappers.Nothing]": ["'gymnasium.wrappers.Nothing'"],
    "env=gymnasium env.speed=3": ["'speed'"],
    "env=gymnasium env.id=Unusual-v0 env.observations=graph": ["Graph", "use Box, Discrete"],
    "env=gymnasium env.id=Unusual-v0 env.actions=text": ["Text", "Discrete"],
    # device, run folder
    "device=tpu": ["device=tpu", "cpu, cuda"],
    "device=cuda:99": ["device=cuda:99 cannot be used here"],
    "run_dir=blocked/run": ["blocked/run"],
    "resume=nowhere": ["resume=nowhere", "no config.yaml"],
}


@pytest.mark.parametrize("arguments", TRAINING)
def test_training(arguments, command, tiny, cwd, no_training):
    (cwd / "blocked").write_text("")  # a file: no folder can be below it, not even for root
    base = [] if arguments.startswith("env=gymnasium") else ["env=t_maze"]
    ended = command("train", *base, *tiny, *arguments.split())
    assert ended.out == ""
    assert_one_sentence(ended, "train: ", *TRAINING[arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(command, tiny, no_training):
    assert_one_sentence(command("train", "env=t_maze", *tiny, "device=cuda"), "device=cuda cannot be used here")


@pytest.mark.parametrize(
    "env, id, package, source",
    [
        ("gymnasium", "popgym-X-v0", "popgym", '"recurrent-ppo[envs]"'),
        ("gymnasium", "ALE/X", "ale_py", '"recurrent-ppo[atari]"'),
        ("gymnasium", "MiniGrid-X", "minigrid", '"recurrent-ppo[envs]"'),
        ("gymnasium", "Hopper-v5", "mujoco", '"recurrent-ppo[mujoco]"'),
        ("atari", "Pong", "ale_py", '"recurrent-ppo[atari]"'),
        ("memory_gym", "MysteryPath-Grid", "memory_gym", "--no-deps memory-gym"),
        ("minigrid", "MemoryS7", "minigrid", '"recurrent-ppo[envs]"'),
        ("mujoco", "InvertedPendulum", "mujoco", '"recurrent-ppo[mujoco]"'),
        ("popgym", "AutoencodeEasy", "popgym", '"recurrent-ppo[envs]"'),
    ],
)
def test_missing_extra(env, id, package, source, command, tiny, no_training, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = command("train", f"env={env}", *tiny, f"env.id={id}")
    assert_one_sentence(ended, id, package, f"pip install {source}")


@pytest.fixture
def run_dir(command, tiny, cwd):
    """A finished training run."""
    assert command("train", "env=t_maze", *tiny, "run_dir=run").code == 0
    return cwd / "run"


def files(folder):
    return {path: hashlib.md5(path.read_bytes()).digest() for path in folder.rglob("*.pt")}


RESUMED = {
    "agent=dual_head_recurrent_ppo": ["agent=dual_head_recurrent_ppo", "keeps its agent and environment"],
    "agent/core=gru": ["agent/core=gru", "keeps its agent and environment"],
    "env=copy_sequence": ["env=copy_sequence", "keeps its agent and environment"],
    "agent.core.hidden_size=8": ["another network", "of another shape"],
    "agent.core.num_layers=2": ["another network", "it lacks"],
    "agent.normalise_returns=true": ["normalise_returns"],
    "agent.clib=0.1": ["'agent.clib'", "did you mean clip"],
    "agnt.clip=0.1": ["'agnt'", "did you mean agent"],
    "totl_steps=16": ["'totl_steps'", "did you mean total_steps"],
    "total_steps=many": ["total_steps='many' is not a whole number"],
}


def test_resume(run_dir, command, no_training):
    before = files(run_dir)
    assert before
    for arguments, words in RESUMED.items():
        assert_one_sentence(command("train", f"resume={run_dir}", *arguments.split()), *words)
    assert files(run_dir) == before


def test_runs_that_are_none(run_dir, command, cwd, no_training):
    shutil.copytree(run_dir, cwd / "empty")
    shutil.rmtree(cwd / "empty" / "checkpoints")
    for name, content in {"torn": (run_dir / "checkpoints/last.pt").read_bytes()[:3000], "text": b"hello"}.items():
        shutil.copytree(run_dir, cwd / name)
        (cwd / name / "checkpoints/last.pt").write_bytes(content)
    shutil.copytree(run_dir, cwd / "foreign_checkpoint")
    torch.save({"weights": torch.zeros(2)}, cwd / "foreign_checkpoint/checkpoints/last.pt")
    (cwd / "foreign").mkdir()
    (cwd / "foreign/config.yaml").write_text("shopping: [milk]\n")
    faults = {
        "empty": ["there is no checkpoint at", "last.pt"],
        "torn": ["last.pt", "damaged"],
        "text": ["last.pt", "damaged"],
        "foreign_checkpoint": ["last.pt", "no checkpoint of recurrent-ppo"],
        "foreign": ["foreign/config.yaml is not the configuration of a run"],
    }
    for folder, words in faults.items():
        assert_one_sentence(command("train", f"resume={folder}"), "train: ", *words)
        assert_one_sentence(command("evaluate", f"run={folder}"), "evaluate: ", *words)


def test_a_key_of_a_preset_that_another_agent_lacks(command):
    """The sentence does not blame the command line for what the preset holds; what was mistyped there it does."""
    ended = command("train", "experiment=t_maze_10_iqn", "agent=recurrent_ppo_lstm")
    assert_one_sentence(
        ended, "train: there is no key 'agent.", "; no argument sets it: look into experiment=t_maze_10_iqn"
    )
    for mistyped in ("agent.clib=3", "agnt.clip=3", "agent.core={hiden_size:3}"):
        ended = command("train", "experiment=t_maze_10", mistyped)
        assert "there is no key" in ended.err and "no argument sets it" not in ended.err


def test_evaluation(run_dir, command):
    for arguments, words in {
        "": ["run is missing", "run=RUN_DIR"],
        "run=nowhere": ["nowhere is no run folder", "config.yaml"],
        "run=run/result.json": ["run/result.json is no run folder"],
        "run=run episodes=0": ["episodes=0", "at least 1"],
        "run=run episodes=few": ["episodes='few' is not a whole number"],
        "run=run device=tpu": ["device=tpu cannot be used here"],
        "run=run episods=3": ["'episods'", "did you mean episodes"],
    }.items():
        assert_one_sentence(command("evaluate", *arguments.split()), "evaluate: ", *words)


def test_plots(run_dir, command):
    for arguments, words in {
        "": ["runs is empty", "runs=[RUN_DIR,RUN_DIR]"],
        "runs=[nowhere]": ["nowhere holds no run"],
        "runs=[run] tag=losses/policy_lost": ["'losses/policy_lost'", "losses/policy_loss"],
        "runz=[run]": ["'runz'", "did you mean runs"],
    }.items():
        assert_one_sentence(command("plot", *arguments.split()), "plot: ", *words)


def test_learning_table_and_benchmark(command):
    for arguments, words in {
        "learning_table rows=[t_maze_11]": ["'t_maze_11'", "did you mean t_maze_10"],
        "learning_table tabel.x.experiment=t_maze_10": ["'tabel'", "did you mean table"],
        "benchmark round=1": ["'round'", "did you mean rounds"],
    }.items():
        name, *rest = arguments.split()
        assert_one_sentence(command(name, *rest), f"{name}: ", *words)


@pytest.mark.parametrize(
    "nan_in, words",
    [
        ("rewards", "reward=nan: it must be finite; saved up to step 16"),
        ("observations", "observation holds nan: it must be finite; saved up to step 16"),
    ],
)
def test_nan_from_an_environment(nan_in, words, command, tiny, cwd):
    """Two updates are fine and saved; the third rollout holds a NaN."""
    sizes = "total_steps=80", "checkpoint_every=8", "run_dir=run"
    ended = command("train", "env=gymnasium", "env.id=Unusual-v0", f"env.nan_in={nan_in}", *tiny, *sizes)
    assert_one_sentence(ended, "train: ", words)
    saved = torch.load(cwd / "run/checkpoints/last.pt", weights_only=True)["agent"]
    assert saved["env_steps"] == 16
    assert all(bool(torch.isfinite(leaf).all()) for leaf in saved["network"].values())
    assert not list((cwd / "run").glob("checkpoints/.*"))  # no half-written file beside it
    assert not (cwd / "run/result.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("train agent.learning_rat=1", ["'agent.learning_rat'", "did you mean learning_rate"]),
        ("evaluate run=nowhere", ["nowhere is no run folder"]),
    ],
)
def test_as_a_process(arguments, words, process):
    name, *rest = arguments.split()
    out, err = (child := process(name, *rest)).communicate(timeout=120)
    assert (child.returncode, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith(f"{name}: ")
    assert all(word in err for word in words)


def test_full_error_on_demand(command, tiny, monkeypatch, no_training):
    """With ``HYDRA_FULL_ERROR=1`` the traceback stays."""
    setenv = monkeypatch.setenv
    monkeypatch.setattr(monkeypatch, "setenv", lambda name, value: setenv(name, "1"))
    with pytest.raises(Exception, match=r"there is no key 'agent\.clib'"):
        command("train", "env=t_maze", *tiny, "agent.clib=1")

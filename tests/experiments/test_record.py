"""``python -m experiments.record``: what was played is what is read back."""

import builtins
import json
import os
import signal

import numpy as np
import pytest
from gymnasium import spaces

from envs.players import TMazeExpert, WitnessVoteExpert
from envs.probes import Counter, SpaceProbe
from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from experiments import record
from experiments.record import ScriptedPlayer, record_episodes, write_minari
from rl.recordings.minari_data import read_minari
from rl.spaces import leaf_arrays

T_MAZE = "player=envs.players.TMazeExpert", "env=t_maze", "env.length=3"


@pytest.fixture
def minari():
    pytest.importorskip("h5py")
    return pytest.importorskip("minari")


class Noted:
    """Plays random actions and notes all that it sees and does."""

    def __init__(self, envs):
        self.envs, self.seen = envs, []
        self.envs.action_space.seed(0)

    def __call__(self, obs, starts):
        actions = self.envs.action_space.sample()
        self.seen.append((obs, actions, starts.copy()))
        return actions


# --------------------------------------------------------------------------------------------------------- the experts


@pytest.mark.parametrize(
    ("envs", "expert"),
    [
        (TMaze(100, 5), TMazeExpert),
        (TMaze(100, 5, passive=False), TMazeExpert),
        (WitnessVote(100), WitnessVoteExpert),
        (WitnessVote(100, 3, 7), WitnessVoteExpert),
    ],
    ids=str,
)
def test_experts_reach_the_optimal_return_in_every_episode(envs, expert):
    episodes = record_episodes(ScriptedPlayer(expert(envs), 100), envs, 250, seed=0, greedy=True)
    assert len(episodes) == 250
    returns = np.array([episode["rewards"].sum() for episode in episodes])
    assert returns == pytest.approx(envs.optimal_return)


# ------------------------------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize("action", ["discrete", "multi_discrete", "multi_binary", "box"])
@pytest.mark.parametrize("observation", ["box", "image", "discrete", "dict", "tuple"])
def test_everything_is_read_back_as_it_was_played(minari, tmp_path, observation, action):
    """Three environments, five episodes of four steps: the last one belongs to the second row's second episode."""
    envs = SpaceProbe(3, observation, action)
    player = Noted(envs)
    episodes = record_episodes(ScriptedPlayer(player, 3), envs, 5, seed=0, greedy=True)
    (tmp_path / "data").mkdir()
    write_minari(minari, tmp_path / "data", "probe", envs, episodes, "Noted")
    recording = read_minari(str(tmp_path))
    assert recording.observation_space == envs.single_observation_space
    assert recording.action_space == envs.single_action_space
    assert recording.bounds.tolist() == [0, 4, 8, 12, 16, 20]
    for number in range(5):
        row, first = number % 3, 4 * (number // 3)
        for t in range(4):
            obs, actions, starts = player.seen[first + t]
            assert starts[row] == (t == 0)
            assert np.array_equal(recording.actions[4 * number + t], actions[row])
            for name, leaf in leaf_arrays(envs.single_observation_space, obs).items():
                assert np.array_equal(recording.obs[name][4 * number + t], leaf[row])
                assert recording.obs[name].dtype == leaf.dtype
    assert recording.rewards == pytest.approx(np.concatenate([episode["rewards"] for episode in episodes]))


def test_large_images_are_not_compressed_with_losses(minari, tmp_path):
    """Minari's default would be JPEG."""
    envs = SpaceProbe(1, "image")
    envs.single_observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    images = np.random.default_rng(0).integers(256, size=(3, 40, 40, 3), dtype=np.uint8)
    flags = np.array([False, True])
    episode = {"observations": images, "actions": np.array([0, 1]), "rewards": np.ones(2, np.float32)}
    write_minari(
        minari, tmp_path / "data", "x", envs, [episode | {"terminations": flags, "truncations": ~flags}], "nobody"
    )
    assert (read_minari(str(tmp_path)).obs["obs"] == images[:2]).all()


def test_the_closing_observation_is_that_of_the_old_episode(minari):
    """SAME_STEP environments show the next episode already: at a terminated end, too."""
    envs = TMaze(2, 3)
    episodes = record_episodes(ScriptedPlayer(TMazeExpert(envs), 2), envs, 4, seed=0, greedy=True)
    for episode in episodes:
        assert episode["observations"].shape == (5, 4)
        assert episode["observations"][-1].tolist() == [0, 0, 0, 1]  # the junction
        assert episode["terminations"].tolist() == [False, False, False, True]


# ---------------------------------------------------------------------------------------------------------- the command


def test_a_scripted_player(minari, command, cwd):
    ended = command("record", *T_MAZE, "episodes=60", "output=somewhere/expert")
    assert (ended.code, ended.err) == (0, "")
    assert "60 episodes, 240 steps, mean return 1.000" in ended.out
    facts = json.loads((cwd / "somewhere/expert/data/metadata.json").read_text())
    assert (facts["total_episodes"], facts["algorithm_name"]) == (60, "envs.players.TMazeExpert")
    dataset = minari.MinariDataset(cwd / "somewhere/expert/data")  # as Minari itself reads it
    assert len(dataset) == 60 and dataset.total_steps == 240
    assert command("record", *T_MAZE, "output=somewhere/expert").err == (
        "record: output=somewhere/expert: somewhere/expert is there already\n"
    )


def test_an_id_lies_where_minari_looks_for_it(minari, command, cwd, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(cwd / "own"))
    assert command("record", *T_MAZE, "episodes=4", "output=t_maze/expert-v0").code == 0
    assert minari.load_dataset("t_maze/expert-v0").total_episodes == 4
    assert len(read_minari("t_maze/expert-v0").groups) == 4


@pytest.mark.parametrize("greedy", ["true", "false"])
def test_a_trained_agent(minari, command, tiny, cwd, greedy):
    assert command("train", "env=witness_vote", "agent=dual_head_recurrent_ppo", *tiny, "run_dir=run").code == 0
    ended = command("record", "run=run", "episodes=3", "output=own", f"greedy={greedy}")
    assert (ended.code, ended.err) == (0, "")
    recording = read_minari("own")
    assert len(recording.groups) == 3 and recording.action_space == spaces.MultiDiscrete([3, 4])
    facts = json.loads((cwd / "own/data/metadata.json").read_text())
    assert facts["algorithm_name"] == f"DualHeadRecurrentPPO, {'greedy' if greedy == 'true' else 'sampled'}"


def test_a_trained_agent_in_another_environment(command, train_maze, monkeypatch):
    """An episode has at least one step more than the maze is long, and twice as many at most."""
    written = []
    monkeypatch.setattr(record, "import_minari", lambda: None)
    monkeypatch.setattr(record, "write_minari", lambda *given: written.extend(given[4]))
    train_maze("run_dir=run")
    for output, arguments, shortest in (("here", (), 3), ("there", ("env.length=7",), 8)):
        written.clear()
        ended = command("record", "run=run", "episodes=2", f"output={output}", *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert all(shortest <= len(episode["rewards"]) <= 2 * shortest for episode in written) and len(written) == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("env.lenght=7", "there is no key 'env.lenght'; did you mean length?"),
        ("env=witness_vote", "the observations there are"),
    ],
)
def test_an_environment_in_which_the_agent_cannot_play(command, train_maze, cwd, monkeypatch, argument, message):
    monkeypatch.setattr(record, "import_minari", lambda: None)
    train_maze("run_dir=run")
    ended = command("record", "run=run", "output=new", argument)
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert not (cwd / "new").exists()


@pytest.mark.parametrize("output", ["file/new", "taken"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_played(command, cwd, monkeypatch, output):
    """Below a file; and where another command has just made its folder, which stays."""
    monkeypatch.setattr(record, "import_minari", lambda: None)
    monkeypatch.setattr(record, "record_episodes", None)
    monkeypatch.setattr(record, "find_destination", lambda *_: cwd / output / "data")
    (cwd / "file").touch()
    (cwd / "taken/data").mkdir(parents=True)
    ended = command("record", *T_MAZE, f"output={output}")
    assert ended.code == 1 and ended.err.count("\n") == 1 and f"{output}/data" in ended.err
    assert (cwd / "taken/data").is_dir()


@pytest.mark.parametrize("num_envs", [1, 4])
def test_environments_side_by_side(minari, command, num_envs):
    """One where there cannot be two; each of them plays its share of exactly the episodes asked for."""
    ended = command("record", *T_MAZE, "episodes=6", f"num_envs={num_envs}", "output=own")
    assert (ended.code, ended.err) == (0, "") and len(read_minari("own").groups) == 6


def test_episodes_that_do_not_end_are_left_out():
    """Rows of 2 and of 9 steps, 3 episodes of the former and 2 of the latter asked for."""
    envs = Counter(2, [2, 9])
    player = ScriptedPlayer(lambda obs, starts: np.zeros(2, dtype=np.int64), 2)
    played = record_episodes(player, envs, 5, 0, True, max_steps=5)
    assert [len(episode["rewards"]) for episode in played] == [2, 2, 2]
    assert [len(episode["rewards"]) for episode in record_episodes(player, envs, 5, 0, True)] == [2, 9, 2, 9, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either run=RUN_DIR, a trained agent, or player=DOTTED.PATH with env=NAME"),
        (("player=envs.players.TMazeExpert",), "env is missing: player needs env=NAME"),
        (("player=envs.players.Nobody", "env=t_maze"), "player=envs.players.Nobody cannot be imported"),
        (("run=nowhere",), "nowhere is no run folder"),
        ((*T_MAZE, "episodes=0"), "episodes=0"),
        ((*T_MAZE, "num_envs=0"), "num_envs=0: it must be a whole number of at least 1"),
        ((*T_MAZE, "max_steps=0"), "max_steps=0: it must be a whole number of at least 1"),
        ((*T_MAZE, "episods=1"), "there is no key 'episods'; did you mean episodes?"),
    ],
)
def test_bad_input(minari, command, cwd, arguments, message):
    ended = command("record", *arguments)
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("place", ["record_episodes", "write_minari"])
def test_a_signal_leaves_nothing_and_says_so(minari, command, cwd, monkeypatch, place):
    """While it plays, and while it writes."""
    original = getattr(record, place)

    def signalled(*arguments):
        monkeypatch.setattr(np, "stack" if place == "record_episodes" else "mean", interrupt)
        return original(*arguments)

    def interrupt(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(record, place, signalled)
    ended = command("record", *T_MAZE, "episodes=4", "output=own")
    assert (ended.code, ended.err) == (143, "record: stopped by SIGTERM before it was complete; nothing was written\n")
    assert list(cwd.iterdir()) == []


def test_the_missing_extra(command, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name in ("minari", "h5py"):
            raise ImportError(f"no {name}", name=name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    ended = command("record", *T_MAZE)
    assert ended.code == 1 and ended.err.startswith("record: recordings need the package ")
    assert ended.err.endswith("pip install 'recurrent-ppo[data]'\n") and ended.err.count("\n") == 1


def test_the_chosen_checkpoint_plays(chosen, command, monkeypatch):
    """What is handed on to be written; no package of the extra is needed for it."""
    written = []
    monkeypatch.setattr(record, "import_minari", lambda: None)
    monkeypatch.setattr(record, "write_minari", lambda *given: written.extend(given[4]))
    ended = command("record", "run=run", "episodes=2", "output=new", chosen.argument)
    assert (ended.code, ended.err) == (0, "")
    assert [(episode["actions"].tolist(), episode["rewards"].sum()) for episode in written] == [
        ([chosen.action] * 6, chosen.total)
    ] * 2

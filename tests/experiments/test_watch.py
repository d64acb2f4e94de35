"""``python -m experiments.watch``: what is played, what is written, and what is refused before anything is played."""

import json
import re

import pytest

from experiments import watch
from experiments.launch.evaluations import EVALUATION_SEED
from rl.checkpoint import find_newest

pytest.importorskip("PIL.Image")


def read_data(path):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', path.read_text(), re.DOTALL)[1])


def rows(ended):
    """The lines of the table as words."""
    return [line.split() for line in ended.out.splitlines() if re.match(r"\s+\d+\s+1000", line)]


@pytest.fixture
def maze(train_maze, cwd):
    train_maze("run_dir=run")
    return cwd


def test_a_page_of_each_episode_kept_and_zeroed(maze, command):
    """In a longer maze than the one of training, with all that the page says of it."""
    ended = command("watch", "run=run", "episodes=2", "zero_at=1", "env.length=3", "output=new/page.html", "seed=4")
    assert (ended.code, ended.err) == (0, ""), ended.err
    data, page = read_data(maze / "new/page.html"), (maze / "new/page.html").read_text()
    assert len(data["episodes"]) == 2 and data["fps"] == 5 and data["zero_at"] == 1
    assert "RecurrentPPOLSTM in TMaze, env.length=3" in page and "After 8 steps of training (last.pt)" in page
    assert [row[:2] for row in rows(ended)] == [["1", str(EVALUATION_SEED + 4)], ["2", str(EVALUATION_SEED + 5)]]
    for number, (row, episode) in enumerate(zip(rows(ended), data["episodes"], strict=True), 1):
        kept, zeroed = episode["runs"]
        so_far = episode["panels"][-1]
        assert [f"{line[-1]:.3f}" for line in so_far] == row[3:5] and int(row[2]) == kept["steps"] <= 8
        assert len(kept["pictures"]) == kept["steps"] + 1 and zeroed["zeroed"]
        assert f"seed {EVALUATION_SEED + 3 + number}" in page
    again = command("watch", "run=run", "episodes=2", "zero_at=1", "env.length=3", "output=page.html", "seed=4")
    assert read_data(maze / "page.html") == data and again.code == 0


def test_one_world_is_neither_timed_nor_stepped_by_a_worker(command, cwd, tiny, monkeypatch):
    """Neither that of the run nor the one that is named for watching."""
    task = "env=gymnasium", "env.id=CartPole-v1"
    trained = command("train", *task, "env.vectorization_mode=sync", "run_dir=run", *tiny)
    assert trained.code == 0, trained.err
    monkeypatch.setattr("envs.gymnasium_env.faster_mode", lambda make: pytest.fail("worker processes were timed"))
    for given in ((), task):
        ended = command("watch", "run=run", "episodes=1", "overwrite=true", "env.vectorization_mode=auto", *given)
        assert ended.code == 0, ended.err


def test_quantile_networks_say_what_they_show(command, cwd):
    small = "num_envs=2", "num_steps=4", "total_steps=16", "evaluate_every=null", "final_episodes=0"
    trained = command("train", "agent=recurrent_iqn", "env=delayed_recall", "env.delay=1", "run_dir=run", *small)
    assert trained.code == 0, trained.err
    ended = command("watch", "run=run", "episodes=1")
    assert ended.code == 0, ended.err
    page = (cwd / "page.html").read_text()
    assert "A quantile network has no distribution of actions" in page and "entropy" not in page.partition("<script")[0]
    assert "mean value of all actions" in page


def test_observations_stand_in_for_pictures(command, cwd, tiny):
    (cwd / "blind.py").write_text(
        "from envs.t_maze import TMaze\n\n\nclass Blind(TMaze):\n"
        "    metadata = {**TMaze.metadata, 'render_modes': []}\n"
    )
    (cwd / "conf/env").mkdir(parents=True)
    (cwd / "conf/env/blind.yaml").write_text("_target_: blind.Blind\nlength: 2\n")
    trained = command("train", "--config-dir=conf", "env=blind", "run_dir=run", *tiny)
    assert trained.code == 0, trained.err
    ended = command("watch", "run=run", "trust=[blind]", "episodes=1")
    assert ended.code == 0, ended.err
    page, (episode,) = (cwd / "page.html").read_text(), read_data(cwd / "page.html")["episodes"]
    assert "draws no pictures: its observations are shown as numbers" in page
    assert episode["runs"][0]["pictures"] == [] and re.fullmatch(r"[01] [01] 1 0", episode["runs"][0]["seen"][0])
    pytest.importorskip("moviepy")
    ended = command("watch", "run=run", "trust=[blind]", "output=video.mp4")
    assert ended.code == 1 and "output=video.mp4: Blind draws no pictures: give output=page.html" in ended.err


def test_members_of_a_population_are_watched_together(command, cwd, tiny):
    rest = [word for word in tiny if not word.startswith(("agent.", "num_envs", "num_steps"))]
    rest += ["num_steps=128"]
    trained = command(
        "train", "agent=population", "env=state_punishment", "env.num_agents=2", "num_envs=4", "run_dir=run", *rest
    )
    assert trained.code == 0, trained.err
    ended = command("watch", "run=run", "episodes=1", "max_steps=3")
    assert ended.code == 0 and "cut after max_steps=3" in ended.out, ended.err
    (episode,) = read_data(cwd / "page.html")["episodes"]
    assert [len(lines) for lines in episode["panels"]][-1] == 2 and len(episode["runs"][0]["pictures"]) == 4
    assert all(action.count("\n") == 1 for action in episode["runs"][0]["actions"])


def test_videos_one_for_each_episode(maze, command):
    pytest.importorskip("moviepy")
    ended = command("watch", "run=run", "episodes=2", "output=film.gif", "max_steps=2")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in maze.glob("film*")) == ["film-1.gif", "film-2.gif"]
    assert command("watch", "run=run", "episodes=1", "output=film.gif", "max_steps=1").code == 0
    assert (maze / "film.gif").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["output=page.avi"], "output=page.avi: it must end in .html, .mp4 or .gif"),
        (["zero_at=-1"], "zero_at=-1: it must be a whole number of at least 0"),
        (["episodes=0"], "episodes=0: it must be a whole number of at least 1"),
        (["max_steps=0"], "max_steps=0: it must be a whole number of at least 1"),
        (["fps=0"], "fps=0.0: it must be a number from 0.1 to 240"),
        (["seed=-1"], "seed=-1: it must be a number from 0 to 2147483648"),
        (["greedy=2"], "greedy=2 is not true or false"),
        (["output=there.html"], "output=there.html: there.html is there already: overwrite=true replaces it"),
        (["env.lenght=3"], "there is no key 'env.lenght'; did you mean length?"),
        (["env=delayed_recall"], "the observations there are Box"),
        (["run=nowhere"], "nowhere is no run folder: it has no config.yaml"),
        (["run=null"], "run is missing: give run=RUN_DIR"),
        (["checkpoint=best"], "checkpoint=best: run/checkpoints/best.pt is not there"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(maze, command, monkeypatch, arguments, sentence):
    (maze / "there.html").write_text("mine")
    monkeypatch.setattr(watch, "watch_episode", None)
    ended = command("watch", "run=run", *arguments)
    assert ended.code == 1 and sentence in ended.err and ended.err.count("\n") == 1
    assert (maze / "there.html").read_text() == "mine" and not (maze / "page.html").exists()


def test_overwriting_has_to_be_asked_for(maze, command):
    (maze / "page.html").write_text("old")
    assert command("watch", "run=run", "episodes=1", "overwrite=true").code == 0
    assert "old" not in (maze / "page.html").read_text()[:10]


def test_settings_reach_the_place_where_they_act(maze, command, monkeypatch):
    """Sampled actions, the bound on steps, the speed, and the newest checkpoint."""
    asked = []
    play = watch.watch_episode

    def note(agent, envs, seed, **options):
        asked.append((agent.env_steps, seed, options.pop("draw") is not None, options))
        return play(agent, envs, seed, **options)

    monkeypatch.setattr(watch, "watch_episode", note)
    arguments = "run=run", "episodes=1", "greedy=false", "max_steps=3", "fps=2.5", "zero_at=2"
    assert command("watch", *arguments).code == 0
    options = {"greedy": False, "max_steps": 3}
    seed = EVALUATION_SEED + 1
    assert asked == [(8, seed, True, options), (8, seed, True, options | {"zero_at": 2})]
    assert read_data(maze / "page.html")["fps"] == 2.5 and find_newest("run").name == "last.pt"


def test_the_chosen_checkpoint_plays(chosen, command, cwd):
    ended = command("watch", "run=run", "episodes=1", chosen.argument)
    assert (ended.code, ended.err) == (0, "")
    name = chosen.file.rpartition("/")[2]
    assert f"After {chosen.env_steps} steps of training ({name})" in (cwd / "page.html").read_text()
    assert rows(ended)[0][2:4] == ["6", f"{chosen.total:.3f}"]

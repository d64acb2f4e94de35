"""``python -m experiments.check_memory``."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments import check_memory
from rl.memory_check import Verdict, check_environment
from rl.ppo.rollout_buffer import RolloutBuffer

CONF = Path(check_memory.__file__).parents[1] / "conf"
AGENTS = ("recurrent_ppo_lstm", "dual_head_recurrent_ppo", "recurrent_iqn")
SMALL = ("num_envs=4", "num_steps=16", "agent.layer_size=8", "agent.core.hidden_size=8", "agent.bptt=8")
PPO = ("agent.num_minibatches=2", "agent.epochs=1")
IQN = ("agent.burn_in=2", "agent.n_step=2", "agent.batch_size=16", "agent.capacity=500", "agent.learning_starts=100")
CONTINUOUS = ("mountain_car_no_velocity", "mujoco", "pendulum_no_velocity")
NEEDS = {  # a package of an extra, and what must differ from SMALL
    "atari": ("ale_py",),
    "brax": ("brax",),
    "memory_gym": ("memory_gym",),
    "minigrid": ("minigrid",),
    "mujoco": ("mujoco",),
    "pettingzoo": ("mpe2", "num_envs=3"),
    "popgym": ("popgym",),
    "state_punishment": ("gymnasium", "num_envs=3"),
}


@pytest.fixture(autouse=True)
def looked_at(monkeypatch):
    """What the environments are checked with: their checks, which take seconds, are tested elsewhere, and here once."""
    calls = []

    def check(envs, **options):
        calls.append(options)
        return [Verdict("final_observations_are_real", True, "not looked at", "", {})]

    monkeypatch.setattr(check_memory, "check_environment", check)
    return calls


def names(folder):
    return sorted(path.stem for path in (CONF / folder).glob("*.yaml"))


def lines_of(ended):
    """The words PASS, FAIL and NOTE by the check that they stand before."""
    found = [line.split()[:2] for line in ended.out.splitlines() if line[:4] in ("PASS", "FAIL", "NOTE")]
    return {name: label for label, name in found}


@pytest.mark.parametrize("env", names("env"))
def test_every_environment_passes(env, command):
    package, *larger = NEEDS.get(env, ("gymnasium",))
    pytest.importorskip(package)
    ended = command("check_memory", f"env={env}", *SMALL, *PPO, *larger)
    assert (ended.code, ended.err) == (0, ""), ended.out
    found = lines_of(ended)
    assert "FAIL" not in found.values() and found["replay_is_exact"] == found["targets_are_right"] == "PASS"


@pytest.mark.parametrize("core", names("agent/core"))
def test_every_core_passes(core, command):
    """With each agent in turn."""
    agent = AGENTS[names("agent/core").index(core) % len(AGENTS)]
    own = IQN if agent == "recurrent_iqn" else PPO
    ended = command("check_memory", f"agent={agent}", f"agent/core={core}", "env=repeat_previous", *SMALL, *own)
    assert (ended.code, ended.err) == (0, ""), ended.out
    found = lines_of(ended)
    assert "FAIL" not in found.values() and found["replay_is_exact"] == found["unroll_equals_step"] == "PASS"
    assert found["nothing_crosses_a_start"] == ("NOTE" if core == "mlp" else "PASS")


def every_pair():
    """A third of what can be put together of agents, cores and environments: any two of different kinds meet."""
    found = []
    for row, core in enumerate(names("agent/core")):
        for column, env in enumerate(names("env")):  # no quantile network has continuous actions
            able = [agent for agent in AGENTS if agent != "recurrent_iqn" or env not in CONTINUOUS]
            found.append((able[(row + column) % len(able)], core, env))
    return found


def test_any_two_of_agents_cores_and_environments_meet():
    agents, cores, envs = zip(*every_pair(), strict=True)
    assert set(zip(cores, envs, strict=True)) == {(core, env) for core in names("agent/core") for env in names("env")}
    assert set(zip(agents, cores, strict=True)) == {(agent, core) for agent in AGENTS for core in names("agent/core")}
    everywhere = {(agent, env) for agent in AGENTS for env in names("env")}
    assert set(zip(agents, envs, strict=True)) == everywhere - {("recurrent_iqn", env) for env in CONTINUOUS}


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "core", "env"), every_pair())
def test_every_agent_passes_with_every_core_and_in_every_environment(agent, core, env, command):
    package, *larger = NEEDS.get(env, ("gymnasium",))
    pytest.importorskip(package)
    own = IQN if agent == "recurrent_iqn" else PPO
    ended = command("check_memory", f"agent={agent}", f"agent/core={core}", f"env={env}", *SMALL, *own, *larger)
    assert (ended.code, ended.err) == (0, ""), ended.out


def test_agents_are_those_of_conf():
    assert {*AGENTS, "population"} == set(names("agent"))


def test_a_population_is_judged_by_member(command):
    own = [
        f"agent.members.{name}.{key}"
        for name in ("first", "second")
        for key in ("bptt=8", "num_minibatches=2", "epochs=1", "layer_size=8", "core.hidden_size=8")
    ]
    world = "env=state_punishment", "env.num_agents=2", "num_envs=4", "num_steps=16"
    ended = command("check_memory", "agent=population", *world, *own)
    assert (ended.code, ended.err) == (0, ""), ended.out
    assert lines_of(ended)["first/replay_is_exact"] == lines_of(ended)["second/replay_is_exact"] == "PASS"


def test_what_is_printed_and_written(command, cwd):
    ended = command("check_memory", "env=t_maze", *SMALL, *PPO, "output=found/checks.json")
    head, _, *lines = ended.out.splitlines()
    lines = lines[lines.index("") + 1 :]  # behind those of the environment
    assert head == "RecurrentPPOLSTM with lstm, 628 parameters, in TMaze"
    column = lines[0].index("sequences differ")
    (gradient,) = (number for number, line in enumerate(lines) if "gradient_reaches_back" in line)
    distances, shares = (line[column:].split() for line in lines[gradient + 1 : gradient + 3])
    assert distances[2:] == ["0", "1", "2", "4", "8", "16", "32", "64", "128", "256"]
    assert shares[:2] == ["gradient", "1.0e+00"] and len(shares) == 11
    for line in lines[:-2]:
        assert line[:6] in ("PASS  ", "NOTE  ", "      ") and line[column - 1] == " " != line[column]
    content = json.loads((cwd / "found/checks.json").read_text())
    assert content["passed"] is True and (content["agent"], content["env"]) == ("RecurrentPPOLSTM with lstm", "TMaze")
    labels = {True: "PASS", False: "FAIL", None: "NOTE"}
    assert {check["check"]: labels[check["passed"]] for check in content["checks"]} == lines_of(ended)
    assert {"final_observations_are_real", "replay_is_exact"} <= lines_of(ended).keys()
    passed = sum(check["passed"] is True for check in content["checks"])
    assert lines[-1] == f"{passed} passed, 0 failed, {len(content['checks']) - passed} to note"


def test_environments_are_looked_at_before_the_agent(command, monkeypatch, looked_at):
    assert command("check_memory", "env=t_maze", *SMALL, *PPO, "seed=7").code == 0
    assert looked_at == [{"seed": 7, "steps": 5_000}]  # 20,000 in four environments
    monkeypatch.setattr(check_memory, "check_environment", check_environment)
    monkeypatch.setattr(check_memory, "PLAYED", 320)
    ended = command("check_memory", "env=t_maze", *SMALL, *PPO)
    assert (ended.code, ended.err) == (0, ""), ended.out
    first = list(lines_of(ended))
    assert first.index("something_is_to_be_remembered") + 1 == first.index("unroll_equals_step")


def test_a_fault_is_one_line_and_exit_code_1(command, cwd, monkeypatch):
    whole = RolloutBuffer.sequences
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda self, *args: list(whole(self, *args))[1:])
    ended = command("check_memory", "env=t_maze", *SMALL, *PPO, "output=checks.json")
    assert ended.code == 1
    assert ended.err == f"check_memory: 1 of {len(lines_of(ended))} checks failed: every_step_is_trained_once\n"
    assert lines_of(ended)["every_step_is_trained_once"] == "FAIL"
    assert "-> shuffle pairs of (sequence, environment)" in ended.out
    assert json.loads((cwd / "checks.json").read_text())["passed"] is False


def test_a_finished_run_is_checked_as_it_was_trained(train_maze, command, monkeypatch):
    train_maze("run_dir=run", "total_steps=160", "seed=5")
    seen, whole = [], check_memory.make_checks
    monkeypatch.setattr(check_memory, "make_checks", lambda parts: seen.append(parts) or whole(parts))
    ended = command("check_memory", "run=run")
    assert (ended.code, ended.err) == (0, ""), ended.out
    (parts,) = seen
    assert parts.agent.env_steps == 160 and parts.settings.seed == 5
    for own in ("env.length=3", "agent/core=gru", "agent.bptt=8", "seed=7"):
        ended = command("check_memory", "run=run", own)
        assert ended.code == 1
        assert ended.err == f"check_memory: {own}: run=run is checked as it was trained, leave it out\n"


@pytest.mark.parametrize(("experiment", "sizes"), [("t_maze_10_iqn", ()), ("quick", ("agent.num_minibatches=2",))])
def test_a_preset_can_be_checked(experiment, sizes, command):
    ended = command("check_memory", f"experiment={experiment}", "num_envs=6", "num_steps=32", *sizes)
    assert (ended.code, ended.err) == (0, ""), ended.out


def test_every_key_of_train_is_known():
    """Experiments set them."""
    train, own = (OmegaConf.load(CONF / f"{name}.yaml") for name in ("train", "check_memory"))
    of_runs = {"resume", "init_from", "run_dir", "overwrite"}
    assert set(train) - of_runs == set(own) - {"run", "checkpoint", "output"}


def test_a_preset_of_ones_own_may_choose_observers(command, cwd):
    """They are not told of the check: no training is watched."""
    (cwd / "conf/experiment").mkdir(parents=True)
    chosen = "# @package _global_\ndefaults:\n  - override /observers: [csv]\n  - override /env: t_maze\n"
    (cwd / "conf/experiment/mine.yaml").write_text(chosen)
    ended = command("check_memory", "--config-dir=conf", "experiment=mine", *SMALL, *PPO)
    assert (ended.code, ended.err) == (0, ""), ended.out
    assert "TMaze" in ended.out and [path.name for path in cwd.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("output=/dev/null/checks.json", "output=/dev/null/checks.json cannot be written"),
        ("run=nowhere", "nowhere"),
        ("agent.bptt=3", "bptt=3 does not divide num_steps=16"),
        ("sed=1", "there is no key 'sed'"),
    ],
)
def test_bad_input_is_one_sentence(override, words, command):
    ended = command("check_memory", "env=t_maze", *SMALL, *PPO, override)
    assert ended.code == 1 and ended.err.startswith("check_memory: ") and words in ended.err
    assert ended.err.count("\n") == 1 and "Traceback" not in ended.err


def test_numbers_that_are_not_finite_can_be_written():
    numbers = {"a": float("inf"), "b": [float("nan"), 1.5, None], "c": {2: True}}
    plain = check_memory.make_plain(Verdict("name", None, "", "", numbers)._asdict())
    assert json.loads(json.dumps(plain, allow_nan=False))["numbers"] == {
        "a": "inf",
        "b": ["nan", 1.5, None],
        "c": {"2": True},
    }


def test_the_chosen_checkpoint_is_checked(chosen, command, monkeypatch):
    seen = []

    def note(parts):
        seen.append((parts.agent.env_steps, int(parts.agent.network.state_dict()["heads.bias"].argmax())))
        return [[Verdict("noted", True, "", "", {})]]

    monkeypatch.setattr(check_memory, "make_checks", note)
    assert command("check_memory", "run=run", chosen.argument).code == 0
    assert seen == [(chosen.env_steps, chosen.action)]

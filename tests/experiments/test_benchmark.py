"""``python -m experiments.benchmark``: rows, report, ratios, and that its parts and light speed are what they say."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from torch import Generator
from torch.distributions import Categorical

import envs
from envs.batched_env import BatchedEnv
from experiments.benchmark import peers, training
from experiments.benchmark.light_speed import LightSpeed
from experiments.benchmark.rows import Process, Row, close_rows, format_number, format_table
from experiments.launch.check import ConfigError
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl.agents.actor import Actor

PARTS = ["environment", "acting", "policy_step", "write", "outcome", "targets", "gather", "encoder", "core"]
PARTS += ["heads_loss", "backward", "clip", "optimiser", "rest_of_update"]

TOY = """#!{python}
import sys
from experiments.peers.serve import Worker, serve

def measure(seconds):
    if seconds == 13.0:
        print("a warning", file=sys.stderr)
        raise ValueError("no luck")
    return 800, 4

serve(lambda: Worker("toy", {{}}, 5, measure))
"""


def small(name="w1", **sizes):
    """A workload of tiny sizes."""
    tiny = {"hidden_size": 4, "num_envs": 2, "num_steps": 16, "layer_size": 4, "epochs": 1, "num_minibatches": 2}
    return replace(WORKLOADS[name], **tiny | sizes)


@pytest.fixture
def small_workloads(monkeypatch):
    """All workloads with tiny sizes for the time of a test, and little to grow."""
    for name in WORKLOADS:
        monkeypatch.setitem(WORKLOADS, name, small(name))
    monkeypatch.setattr(training, "GROWTH", {"num_envs": (2, 4), "episode_length": (5,), "threads": (1,)})


@pytest.fixture
def clock(monkeypatch):
    """The clock of the parts: ``clock.now`` moves when told, or with calls that were made to ``take`` so long."""

    class Clock:
        now = 0.0

        def take(self, seconds, call=lambda: None):
            def slow(*arguments, **options):
                self.now += seconds
                return call(*arguments, **options)

            return slow

    made = Clock()
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def test_end_to_end(command, cwd, small_workloads):
    ended = command("benchmark", "rounds=3", "seconds=0.01", "workloads=[w1,w3]", "cores=[gru]", "output=speed.json")
    assert (ended.code, ended.err) == (0, "")
    assert [path.name for path in cwd.iterdir()] == ["speed.json"]
    report = json.loads((cwd / "speed.json").read_text())
    assert (report["rounds"], report["threads"]) == (3, 1) and report["versions"]["torch"] == torch.__version__
    medians, raw = report["medians"], report["all_rounds"]
    assert list(medians) == ["environments", "training", "acting", "growth"]
    assert list(medians["training"]) == ["w1 gru", "w3 gru"]
    assert list(medians["acting"]) == ["one environment, gru"]
    assert list(medians["growth"]) == ["num_envs 2", "num_envs 4", "episode_length 5", "threads 1"]
    for section, rows in medians.items():
        for label, numbers in rows.items():
            assert min(numbers.values()) > 0, label
            rounds = raw[section][label]
            assert len(rounds) == 3
            assert numbers == {name: median(seen[name] for seen in rounds) for name in rounds[0]}
        assert format_table(section, rows) in ended.out
    for row in raw["training"]["w1 gru"]:
        assert list(row) == ["steps_per_second", "light_speed", "share", *PARTS, "buffer_MB", "host_reads"]
        assert row["share"] == pytest.approx(row["steps_per_second"] / row["light_speed"])
        assert row["host_reads"] == 1
    assert "ratios" not in report


@pytest.mark.parametrize(
    "argument, words",
    [
        ("sections=[trainin]", ["sections: there is no section 'trainin'", "did you mean training?"]),
        ("sections=[training,speed]", ["sections: there is no section 'speed'", "did you mean peers?"]),
        ("workloads=[w4]", ["workloads: there is no workload 'w4'", "w1"]),
        ("cores=[lstmm]", ["cores: there is no core 'lstmm'", "did you mean lstm"]),
        ("sections=[]", ["sections is empty"]),
        ("rounds=0", ["rounds=0"]),
        ("rounds=few", ["rounds='few' is not a whole number"]),
        ("seconds=0", ["seconds=0"]),
        ("section=training", ["there is no key 'section'", "did you mean sections"]),
        ("output=.", ["output=. cannot be written"]),
    ],
)
def test_bad_keys(command, cwd, argument, words):
    ended = command("benchmark", argument)
    assert ended.code == 1 and ended.err.startswith("benchmark: ") and ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err
    assert ended.out == "" and not list(cwd.iterdir())


def test_a_missing_peer_is_named(command, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    ended = command("benchmark", "sections=[peers]")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "sb3_contrib is not installed: pip install 'recurrent-ppo[bench]'" in ended.err


def test_every_environment_is_measured():
    """Every task class of the package, not only those that somebody remembered to register."""
    modules = [importlib.import_module(f"envs.{module.name}") for module in pkgutil.iter_modules(envs.__path__)]
    tasks = {
        f"{name}-v0"
        for module in modules
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, BatchedEnv) and member is not BatchedEnv and module.__name__ != "envs.probes"
    }
    rows = training.make_environment_rows(seconds=1e-3)
    assert {row.label for row in rows} == tasks and len(rows) == len(tasks)
    for row in rows:
        assert row.measure(0)["steps_per_second"] > 0, row.label


def test_environment_speed_counts_all_copies(monkeypatch):
    """64 steps of 64 copies in one second of a clock that is asked three times."""
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=iter([10.0, 10.0, 11.0]).__next__))
    assert training.measure_environment("RecurrentPPO/TMaze-v0", seconds=0.5) == {"steps_per_second": 64 * 64}


def test_table():
    medians = {"a row": {"steps_per_second": 12345.6, "share": 0.87654}, "another": {"share": 1.0, "ms": -1500.0}}
    assert format_table("title", medians).split("\n") == [
        "title    steps per second      share         ms",
        "a row              12,346     0.8765           ",
        "another                            1     -1,500",
    ]


@pytest.mark.parametrize(
    "number, text", [(999.94, "999.9"), (1000.4, "1,000"), (0.000123456, "0.0001235"), (3, "3"), (2e6, "2,000,000")]
)
def test_four_digits(number, text):
    assert format_number(number) == text


def test_medians_over_rounds():
    row = Row("row", lambda round: {"x": [5.0, 1.0, 2.0][round], "y": float(round)})
    for round in range(3):
        row.rounds.append(row.measure(round))
    assert row.compute_medians() == {"x": 2.0, "y": 1.0}


def test_closing_after_a_fault():
    closed = []
    rows = [Row(name, dict, partial(closed.append, name)) for name in "abc"]
    with pytest.raises(ZeroDivisionError), close_rows(rows):
        raise ZeroDivisionError
    assert closed == ["a", "b", "c"]
    with close_rows(rows):
        closed.clear()
    assert closed == ["a", "b", "c"]


@pytest.fixture
def toy(cwd, monkeypatch, child_environment):
    """A program to start in place of Python, which serves a toy worker whatever module it is asked for."""
    monkeypatch.setenv("PYTHONPATH", child_environment["PYTHONPATH"])
    program = cwd / "toy"
    program.write_text(TOY.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def test_process(toy):
    process = Process("toy", ["--workload", "w1"], python=toy)
    assert process.process.args == [toy, "-m", "experiments.peers.toy", "--workload", "w1"]
    assert process.hello == {"name": "toy", "versions": {}, "parameters": 5}
    numbers = process.measure(0.5)
    assert numbers.keys() == {"steps_per_cpu_second", "steps_per_second", "episode_length"}
    assert numbers["episode_length"] == 200.0 and min(numbers.values()) > 0
    process.close()
    assert process.process.returncode == 0
    process.close()  # twice does no harm


def test_process_divides_by_its_seconds():
    process = Process.__new__(Process)
    process.input = None
    process._read = lambda: {"env_steps": 600, "episodes": 0, "wall_seconds": 3.0, "cpu_seconds": 2.0}
    assert process.measure(1.0) == {"steps_per_cpu_second": 300, "steps_per_second": 200, "episode_length": 600}


def test_process_that_dies_says_why(toy):
    process = Process("toy", [], python=toy)
    with pytest.raises(RuntimeError, match=r"^-m experiments\.peers\.toy ended: ValueError: no luck$"):
        process.measure(13.0)
    assert process.process.returncode == 1
    with pytest.raises(RuntimeError, match=r"purejaxrl --workload w2 ended: .* error: .*--checkout"):
        Process("purejaxrl", ["--workload", "w2"])
    process.close()


def speeds(cpu, wall):
    return {"steps_per_cpu_second": float(cpu), "steps_per_second": float(wall)}


def test_ratios():
    """Per CPU second one thread against one thread, by the clock the best of each side."""
    medians = {
        "w1 lstm recurrent_ppo": speeds(100, 100),
        "w1 lstm recurrent_ppo, 2 threads": speeds(70, 120),
        "w1 lstm skrl": speeds(20, 20),
        "w1 lstm skrl, 2 threads": speeds(16, 30),
        "w1 lstm skrl, padded": speeds(25, 24),
        "w1 lstm sb3_contrib": speeds(10, 10),
        "w1 lstm sb3_contrib, 2 threads": speeds(5, 8),
        "w1 lstm sb3_contrib, one LSTM": speeds(20, 16),
        "w1 lstm recurrent_ppo, whole rollout": speeds(90, 80),
        "w1 lstm purejaxrl": speeds(50, 160),
        "w1 gru recurrent_ppo": speeds(110, 110),
        "w1 gru recurrent_ppo, 2 threads": speeds(60, 90),
        "w1 gru skrl": speeds(11, 11),
        "w3 gru recurrent_ppo": speeds(7, 7),
        "w3 gru skrl, padded": speeds(7, 14),
    }
    found = {label: tuple(numbers.values()) for label, numbers in peers.compute_ratios(medians).items()}
    assert found == {
        "w1 lstm / skrl": (5.0, 4.0),
        "w1 lstm / skrl, padded": (4.0, 5.0),
        "w1 lstm / sb3_contrib": (10.0, 12.0),
        "w1 lstm / sb3_contrib, one LSTM": (5.0, 7.5),
        "w1 lstm / purejaxrl": (2.0, 0.75),
        "w1 lstm / purejaxrl, whole rollout": (1.8, 0.5),
        "w1 gru / skrl": (10.0, 10.0),
        "w3 gru / skrl, padded": (1.0, 0.5),
        "w1 gru / sb3_contrib (LSTM)": (11.0, 11.0),
    }
    assert list(peers.compute_ratios(medians)["w1 lstm / skrl"]) == ["per_cpu_second", "by_the_clock"]


class FakeProcess:
    """A worker of a known speed that is never started."""

    made: list["FakeProcess"]

    def __init__(self, module, arguments, python=sys.executable):
        self.line, self.closed = [module, *arguments], 0
        if python != sys.executable:
            self.line.append(python)
        self.made.append(self)

    def measure(self, seconds):
        assert seconds == 2.0
        slower = 4.0 if self.line[0] == "skrl" else 10.0 if self.line[0] == "sb3_contrib" else 1.0
        return speeds(1000.0 / slower, 1100.0 / slower) | {"episode_length": 20.0}

    def close(self):
        self.closed += 1


@pytest.fixture
def fake_processes(monkeypatch):
    """All workers are fake; those that were made."""
    monkeypatch.setattr(peers, "Process", FakeProcess)
    monkeypatch.setattr(peers, "require", lambda *packages: None)
    monkeypatch.setattr(FakeProcess, "made", [], raising=False)
    return FakeProcess.made


def test_rows_of_peers(fake_processes):
    rows = peers.make_rows(2.0, ["w1", "w2"], ["lstm", "gru"], "CHECKOUT", "JAX")
    lines = {row.label: " ".join(process.line) for row, process in zip(rows, fake_processes, strict=True)}
    names = {}
    for label in lines:
        names.setdefault(" ".join(label.split(" ")[:2]), []).append(label.split(" ", 2)[2])
    both = ["recurrent_ppo", "skrl", "recurrent_ppo, 2 threads", "skrl, 2 threads", "skrl, padded"]
    lstm = [*both, "sb3_contrib", "sb3_contrib, 2 threads", "sb3_contrib, one LSTM"]
    jax = ["recurrent_ppo, whole rollout", "recurrent_ppo, sequences of 8", "purejaxrl"]
    assert {place: sorted(found) for place, found in names.items()} == {
        "w1 lstm": sorted(lstm + jax),
        "w1 gru": sorted(both + jax),
        "w2 lstm": sorted(lstm),
        "w2 gru": sorted(both),
    }
    assert lines["w1 gru skrl, padded"] == "skrl --workload w1 --core gru --variant padded"
    assert lines["w2 gru skrl, 2 threads"] == "skrl --workload w2 --core gru --threads 2"
    assert lines["w2 lstm sb3_contrib, one LSTM"] == "sb3_contrib --workload w2 --core lstm --variant shared"
    assert lines["w1 gru recurrent_ppo, whole rollout"] == "recurrent_ppo --workload w1 --core gru --bptt 128"
    assert lines["w1 gru recurrent_ppo, sequences of 8"] == "recurrent_ppo --workload w1 --core gru --bptt 8"
    assert lines["w1 lstm purejaxrl"] == "purejaxrl --workload w1 --core lstm --checkout CHECKOUT JAX"


def test_beside_peers_end_to_end(command, cwd, fake_processes):
    ended = command("benchmark", "sections=[peers]", "workloads=w1", "cores=[gru]", "rounds=2", "seconds=2")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((cwd / "benchmark.json").read_text())
    wanted = {"per_cpu_second": 4.0, "by_the_clock": 4.0}
    assert report["ratios"] == {"w1 gru / skrl": wanted, "w1 gru / skrl, padded": wanted}
    assert format_table("ratio", report["ratios"]) in ended.out
    assert len(fake_processes) == 5 and all(process.closed == 1 for process in fake_processes)


def test_workers_are_closed_after_a_fault(command, cwd, fake_processes, monkeypatch):
    def fail(self, seconds):
        raise RuntimeError("worker ended")

    monkeypatch.setattr(FakeProcess, "measure", fail)
    ended = command("benchmark", "sections=[peers]", "workloads=[w1]", "cores=[gru]", "seconds=2")
    assert (ended.code, ended.err) == (1, "benchmark: worker ended\n")
    assert len(fake_processes) == 5 and all(process.closed == 1 for process in fake_processes)
    assert not list(cwd.iterdir())


def test_time_to_threshold(monkeypatch):
    """Each round is a run of its own with the next seed, and is timed with its start."""
    lines, clock = [], iter([0.0, 8.5, 0.0, 6.5, 0.0, 7.5, 0.0, 40.0]).__next__

    def run(line, check, capture_output, text=False):
        assert check and capture_output and line[:2] == [sys.executable, "-m"]
        lines.append(line[2:])
        if line[2] == "experiments.train":
            folder = Path(line[-1].removeprefix("run_dir="))
            folder.mkdir()
            result = {"env_steps": 20480, "eval_return_mean": 498.5, "wall_seconds": 1.0}
            (folder / "result.json").write_text(json.dumps(result))
        printed = 'noise\n{"env_steps": 35072, "eval_return": 500.0, "solved": true, "training_seconds": 9.0}\n'
        return subprocess.CompletedProcess(line, 0, stdout=printed)

    monkeypatch.setattr(peers.subprocess, "run", run)
    monkeypatch.setattr(peers, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: name)
    cart_pole, with_gru, maze, sb3 = peers.make_threshold_rows()
    assert cart_pole.measure(2) == {"seconds": 8.5, "env_steps": 20480, "eval_return": 498.5}
    assert with_gru.measure(0)["seconds"] == 6.5
    assert maze.measure(0)["seconds"] == 7.5
    assert sb3.measure(1) == {"seconds": 40.0, "env_steps": 35072, "eval_return": 500.0}
    at_threshold = "stop_at_threshold=true"
    preset = ["experiments.train", "experiment=cartpole_no_velocity", "evaluate_every=2048"]
    assert [line[:-1] for line in lines[:3]] == [
        [*preset, at_threshold, "seed=3"],
        [*preset, "agent/core=gru", "agent.epochs=20", at_threshold, "seed=1"],
        ["experiments.train", "experiment=t_maze_30", at_threshold, "seed=1"],
    ]
    assert lines[3] == ["experiments.peers.sb3_threshold", "--seed", "2", "--evaluate-every", "2048"]
    assert not Path(lines[0][-1].removeprefix("run_dir=")).exists()
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert len(peers.make_threshold_rows()) == 3
    with pytest.raises(ConfigError, match="skrl is not installed"):
        peers.require("skrl")


def test_nested_parts_do_not_count_twice(clock):
    spent, inside = {"outer": 0.0, "middle": 0.0, "inner": 0.0}, [0.0]
    inner = training.clock_calls(clock.take(2.0), "inner", spent, inside)
    middle = training.clock_calls(clock.take(30.0, inner), "middle", spent, inside)

    def calls():
        middle()
        inner()
        clock.now += 400.0
        return "result"

    outer = training.clock_calls(calls, "outer", spent, inside)
    assert (outer(), outer()) == ("result", "result")
    assert spent == {"outer": 800.0, "middle": 60.0, "inner": 8.0}
    assert inside == [868.0] and clock.now == 868.0


def test_a_generator_counts_only_while_it_works(clock):
    spent, inside = {"gather": 0.0}, [0.0]

    def items():
        for item in "ab":
            clock.now += 5.0
            yield item
        clock.now += 1.0

    seen = []
    for item in training.clock_calls(items, "gather", spent, inside)():
        clock.now += 100.0  # the work of whoever takes the items
        seen.append(item)
    assert (seen, spent) == (["a", "b"], {"gather": 11.0})


def test_stopwatch_takes_parts_out_of_those_around(clock, monkeypatch):
    """Only these calls take time, so all else has none; 16 steps, then 2 minibatches."""
    run = make_training(small(), "lstm", bptt=8)
    run()
    monkeypatch.setattr(run.envs, "step", clock.take(1.0, run.envs.step))
    monkeypatch.setattr(Actor, "step", clock.take(2.0, Actor.step))
    core = run.agent.network.actor.core
    monkeypatch.setattr(core, "unroll", clock.take(10.0, core.unroll))
    monkeypatch.setattr(torch.autograd, "grad", clock.take(100.0, torch.autograd.grad))
    monkeypatch.setattr(run.agent.optimizer, "step", clock.take(1000.0, run.agent.optimizer.step))
    with training.time_parts(run) as parts:
        run()
    wanted = {"environment": 16.0, "policy_step": 32.0, "core": 20.0, "backward": 200.0, "optimiser": 2000.0}
    assert parts == dict.fromkeys(PARTS, 0.0) | wanted
    run()
    assert parts["environment"] == 16.0  # closed


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_no_part_is_missed(name):
    """What is watched still stands where the stopwatch looks for it, and comes to no more than the whole."""
    run = make_training(small(name), "gru", bptt=8)
    run()
    began = training.time.perf_counter()
    with training.time_parts(run) as parts:
        run()
        elapsed = training.time.perf_counter() - began
    assert list(parts) == PARTS and min(parts.values()) > 0.0
    assert 0.5 * elapsed < sum(parts.values()) < elapsed


@pytest.mark.parametrize("what", training.GROWTH)
def test_growth_changes_one_size(what, monkeypatch):
    monkeypatch.setitem(WORKLOADS, "w1", small(num_steps=32))
    value = {"core": "gru", "bptt": 32, "episode_length": 9}.get(what, 3 if what != "num_steps" else 16)
    run = training.vary_workload(what, value)
    agent = run.agent
    seen = {
        "num_envs": agent.num_envs,
        "num_steps": agent.num_steps,
        "hidden_size": agent.network.actor.core.output_size,
        "bptt": agent.ppo.bptt,
        "episode_length": getattr(run.envs.envs, "mean", None),
        "core": type(agent.network.actor.core.layers[0]).__name__.removesuffix("Layer").lower(),
    }
    fixed = {"num_envs": 2, "num_steps": 32, "hidden_size": 4, "bptt": 16, "episode_length": None, "core": "lstm"}
    assert seen == fixed | ({what: value} if what != "threads" else {})


def test_threads_are_set_for_their_row_only(monkeypatch):
    threads = []
    monkeypatch.setattr(training.torch, "set_num_threads", threads.append)
    run = make_training(small(), "lstm", bptt=8)
    for what, value in (("threads", 2), ("num_envs", 4)):
        numbers = training.measure_growth(run, what, value, 1e-6, threads=1, round=1)
        assert numbers["us_per_step"] == pytest.approx(1e6 / numbers["steps_per_second"])
    assert threads == [2, 1, 1, 1]


def test_random_ends():
    env = training.RandomEnds(num_envs=200, mean=20)
    env.reset(seed=0)
    ended = sum(int(env.step(env.action_space.sample())[2].sum()) for _ in range(200))
    assert 200 * 200 / ended == pytest.approx(20, rel=0.1)


@pytest.fixture(params=["lstm", "gru"])
def light(request):
    """Light speed of a tiny w1 in one minibatch, with old log-probabilities such that the clip matters."""
    run = make_training(small(num_envs=8, num_minibatches=1, hidden_size=8), request.param, bptt=8)
    run()
    return LightSpeed(run)


def away(log_probs):
    """Other log-probabilities, so that ratios lie on both sides of the clip range and inside it."""
    return log_probs + 0.4 * torch.randn(log_probs.shape, generator=Generator().manual_seed(1))


def test_slope_is_the_gradient_of_the_loss(light):
    ppo, (mb,) = light.agent.ppo, light.minibatches
    mb = replace(
        mb,
        old_log_probs=away(mb.old_log_probs).double(),
        advantages=mb.advantages.double(),
        returns=mb.returns.double(),
    )
    ppo.value_coef, ppo.entropy_coef = 0.7, 0.3
    out = torch.randn(*mb.returns.shape, 3, dtype=torch.float64, requires_grad=True)  # [L, N, A + 1]
    policy, values = Categorical(logits=out[..., :-1]), out[..., -1]
    ratio = (policy.log_prob(mb.actions[..., 0]) - mb.old_log_probs[..., 0]).exp()
    clipped = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
    gains = ratio * mb.advantages, clipped * mb.advantages
    assert 0.1 < (gains[1] < gains[0]).double().mean() < 0.9  # the clip holds some of them
    policy_loss = -torch.minimum(*gains).mean()
    value_loss = 0.5 * (values - mb.returns).square().mean()
    loss = policy_loss + ppo.value_coef * value_loss - ppo.entropy_coef * policy.entropy().mean()
    (wanted,) = torch.autograd.grad(loss, out)
    torch.testing.assert_close(light.slope(out.detach(), mb), wanted, atol=1e-12, rtol=1e-9)


def test_light_speed_learns_what_training_learns(light):
    """One minibatch through both from the same weights: the same gradient, clipped alike, and the same new weights."""
    run, agent = light.run, light.agent
    ppo, optimizer = agent.ppo, agent.optimizer
    ppo.entropy_coef, ppo.max_grad_norm = 0.1, 0.01  # both matter
    agent.network.heads.weight.data[:-1].mul_(100.0)  # away from a uniform policy, whose entropy has no slope
    run.collect()
    targets, _ = agent.targets(run.obs)
    targets.old_log_probs = away(targets.old_log_probs)
    ((minibatch, _),) = agent.buffer.sequences(targets, 1, ppo.bptt, Generator().manual_seed(0))
    assert minibatch.starts[1:].any()  # an episode starts inside a sequence
    (vector,) = optimizer.param_groups[0]["params"]
    before, moments = vector.detach().clone(), deepcopy(optimizer.state_dict())

    light.learn(minibatch)
    gradient, scale, after = vector.grad.clone(), optimizer.grad_scale.clone(), vector.detach().clone()
    assert gradient.norm() == pytest.approx(0.01) and scale > 10.0 and not torch.equal(after, before)

    vector.data.copy_(before)
    optimizer.load_state_dict(moments)
    ppo.update(agent.network, optimizer, agent.buffer, targets, Generator().manual_seed(0), 0.0)
    torch.testing.assert_close(gradient, vector.grad, atol=1e-8, rtol=1e-4)
    torch.testing.assert_close(scale, optimizer.grad_scale, atol=0, rtol=1e-5)
    torch.testing.assert_close(after, vector.detach(), atol=1e-7, rtol=0)


def test_light_speed_plays_and_counts_steps(light, monkeypatch):
    """Two iterations of 8 x 16 steps in four seconds of its clock."""
    stepped, step = [], light.run.envs.step
    monkeypatch.setattr(light.run.envs, "step", lambda actions: stepped.append(actions.copy()) or step(actions))
    clock = SimpleNamespace(perf_counter=iter([0.0, 1.0, 2.0, 4.0]).__next__)
    monkeypatch.setattr("experiments.benchmark.light_speed.time", clock)
    assert light.measure(3.0) == 2 * 8 * 16 / 4.0
    assert len(stepped) == 2 * 16 and {action for actions in stepped for action in actions} == {0, 1}

"""Environments as strangers write them, with a fault of their own in every place where one can be."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from experiments.reliability.judge import Fault, check_refused, check_refused_or_done, check_success
from experiments.reliability.processes import run
from experiments.reliability.recipes import LOOP, PPO, load_steps
from experiments.reliability.tries import Place, Try, number_tries
from rl.training.run import checkpoint_path

WORDS = (
    "exceptions of every class in every call of an environment, in this process and in workers, workers that die, "
    "steps that hang, observations, rewards, flags and returns of another kind: one sentence, saved up to the last "
    "update, and resumed once the environment is mended"
)
MODULE = """
import json, os, pathlib, signal, time, gymnasium, numpy as np
from gymnasium import spaces

class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")
        self.handle = open(os.devnull)

class Nameless(BaseException):
    pass

def act(what):
    if what == "hang": time.sleep(600)
    if what == "exit": os._exit(3)
    if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if what == "sys.exit": raise SystemExit(4)
    if what == "interrupt": raise KeyboardInterrupt
    if what == "Unpicklable": raise Unpicklable("own", "fault")
    if what == "Nameless": raise Nameless()
    if what == "lines": raise ValueError("first line\\nsecond line\\nthird line")
    if what == "long": raise ValueError("x" * 5000)
    if what == "chained":
        try: {}["missing"]
        except KeyError as error: raise RuntimeError("own fault") from error
    if what == "empty": raise ValueError()
    kind = getattr(__builtins__, what, None) if not isinstance(__builtins__, dict) else __builtins__.get(what)
    if what == "UnicodeDecodeError": b"\\xff".decode("ascii")
    if kind is not None: raise kind("own fault")

ODD = {
    "obs shape": lambda r: (np.zeros(5, np.float32), *r[1:]), "obs dtype": lambda r: (np.zeros(3, complex), *r[1:]),
    "obs text": lambda r: ("text", *r[1:]), "obs None": lambda r: (None, *r[1:]),
    "obs NaN": lambda r: (np.full(3, np.nan, np.float32), *r[1:]), "obs list": lambda r: ([0.0, 0.0, 0.0], *r[1:]),
    "obs object": lambda r: (np.array([None, 1, 2], object), *r[1:]),
    "reward NaN": lambda r: (r[0], np.nan, *r[2:]), "reward inf": lambda r: (r[0], -np.inf, *r[2:]),
    "reward None": lambda r: (r[0], None, *r[2:]), "reward text": lambda r: (r[0], "1.0", *r[2:]),
    "reward array": lambda r: (r[0], np.array([1.0]), *r[2:]), "reward vector": lambda r: (r[0], np.ones(2), *r[2:]),
    "flags None": lambda r: (*r[:2], None, None, r[4]), "flags text": lambda r: (*r[:2], "no", "no", r[4]),
    "flags arrays": lambda r: (*r[:2], np.array([False]), np.array([False]), r[4]),
    "info None": lambda r: (*r[:4], None), "info list": lambda r: (*r[:4], []),
    "four values": lambda r: (*r[:2], r[2] or r[3], r[4]), "six values": lambda r: (*r, 0), "nothing": lambda r: None,
    "own keys": lambda r: (*r[:4], {"final_obs": 1, "ignored": 3, "_final_obs": 7, "episode": None}),
}

class Env(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    metadata = {}

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0
        self.fault = json.loads(pathlib.Path(FOLDER, "fault.json").read_text())
        self.happen("__init__")

    def happen(self, call):
        if self.fault["call"] == call and self.steps >= self.fault["after"]: act(self.fault["what"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.happen("reset")
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        self.happen("step")
        result = np.full(3, self.t / 10, np.float32), float(action), self.t >= 5, False, {}
        odd = self.fault["call"] == "return" and self.steps >= self.fault["after"]
        return ODD[self.fault["what"]](result) if odd else result

    def close(self):
        self.happen("close")

gymnasium.register("Faulty-v0", Env)
"""
EXCEPTIONS = (
    *("ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "RuntimeError", "ZeroDivisionError"),
    *("AssertionError", "NotImplementedError", "StopIteration", "OSError", "FileNotFoundError", "ImportError"),
    *("MemoryError", "RecursionError", "EOFError", "BrokenPipeError", "TimeoutError", "UnicodeDecodeError"),
    *("NameError", "LookupError", "FloatingPointError", "Unpicklable", "Nameless", "lines", "long", "chained", "empty"),
)
CALLS = ("step", "reset", "__init__", "close", "step")
DEATHS = ("exit", "kill", "segfault", "sys.exit")
ODD = (
    *("obs shape", "obs dtype", "obs text", "obs None", "obs NaN", "obs list", "obs object"),
    *("reward NaN", "reward inf", "reward None", "reward text", "reward array", "reward vector"),
    *("flags None", "flags text", "flags arrays", "info None", "info list"),
    *("four values", "six values", "nothing", "own keys"),
)
LATE = 22
"""Step of the fault of an environment: after some updates of four steps, four episodes and a checkpoint."""
LIMIT = 60.0


def list_tries() -> list[Try]:
    """List every class of exception in some call, deaths, hangs and odd returns, in this process and in workers."""
    found: list[tuple[str, Callable[[Place], None]]] = []

    def add(call: str, what: str, mode: str, after: int, check: Callable[..., None]) -> None:
        label = f"{what} in {call}, {mode}" + (f", step {after}" if after else "")
        found.append((label, partial(check, fault={"call": call, "what": what, "after": after}, mode=mode)))

    for index, what in enumerate(EXCEPTIONS):
        for mode in ("sync", "async"):
            call = CALLS[(index + (mode == "async")) % len(CALLS)]
            add(call, what, mode, LATE if call in ("step", "reset") else 0, train_faulty)
        if index % 4 == 0:
            add("step", what, "sync", 1, train_faulty)
    for what in DEATHS:
        add("step", what, "async", LATE, train_faulty)
        add("reset", what, "async", 0, train_faulty)
    for mode in ("sync", "async"):
        add("step", "hang", mode, LATE, train_faulty)
        for what in ODD:
            add("return", what, mode, LATE, train_odd)
    add("reset", "hang", "async", 0, train_faulty)
    return number_tries("environments", found)


def write_module(folder: Path, fault: dict[str, str | int]) -> None:
    """Write the stranger's module, and what is to go wrong in it."""
    (folder / "stranger.py").write_text(MODULE.replace("FOLDER", repr(str(folder)), 1))
    (folder / "fault.json").write_text(json.dumps(fault))


def list_words(mode: str, what: str | int) -> list[str]:
    """Return the words of a training in the stranger's environment."""
    more = ["evaluation_envs=1", *(["env_timeout=2"] if what == "hang" else [])]
    agent = [f"agent.{option}" for option in PPO]
    steps = ("total_steps=160", "evaluate_every=null")
    environment = ("env=gymnasium", "env.id=stranger:Faulty-v0", f"env.vectorization_mode={mode}")
    return ["train", *environment, *LOOP, *steps, *agent, *more, "run_dir=run"]


def train_faulty(place: Place, fault: dict[str, str | int], mode: str) -> None:
    """Train where the environment fails: told in one sentence, saved, and resumed once it is mended."""
    write_module(place.folder, fault)
    ended = run(list_words(mode, fault["what"]), place.folder, limit=LIMIT)
    if fault["call"] == "close":  # all is done by then
        check_refused_or_done(ended)
        return
    names = {"hang": ("env_timeout", "2 s", "seconds")}.get(str(fault["what"]), ("stranger", "worker", "Faulty"))
    check_refused(ended, *names)
    if fault["after"] == LATE:
        check_resumable(place, fault)


def train_odd(place: Place, fault: dict[str, str | int], mode: str) -> None:
    """Train where the environment returns what it should not: it works, or it is refused in one sentence."""
    write_module(place.folder, fault)
    ended = run(list_words(mode, ""), place.folder, limit=LIMIT)
    check_refused_or_done(ended)
    if ended.code:
        check_resumable(place, fault)


def check_resumable(place: Place, fault: dict[str, str | int]) -> None:
    """Check that a run was saved at the fault, and goes on to its end without it.

    Raises:
        Fault: nothing was saved, or less than there was.
    """
    path = checkpoint_path(place.folder / "run")
    if not path.is_file():
        raise Fault("nothing was saved before the fault of the environment")
    steps, played = load_steps(place.folder / "run")["agent"]["env_steps"], int(fault["after"]) * 2
    if steps < played - 2 * 8:  # two environments, updates every four of their steps, a fault in either
        raise Fault(f"the checkpoint has {steps} of about {played} steps: it was not saved up to the last update")
    write_module(place.folder, fault | {"call": "none"})
    ended = run(["train", "resume=run"], place.folder)
    if ended.code == 1 and "trust=" in ended.err:
        ended = run(["train", "resume=run", "trust=[stranger]"], place.folder)
    check_success(ended)

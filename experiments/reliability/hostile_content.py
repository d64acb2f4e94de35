"""What a stranger can hide in a configuration or a checkpoint: every entry leaves a file behind if its code runs."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from experiments.reliability.judge import TRACE

FOLDER = "stranger"
"""The run folder, in the folder that the command is called from."""
SHELL = f"touch {TRACE}"
OS = "os.system"
CALL = {"_target_": "os.system", "command": SHELL}
POSITIONAL = {"_target_": "os.system", "_args_": [SHELL]}
CARTPOLE = {"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1", "vectorization_mode": "sync"}
MODULE = f"""
import pathlib

pathlib.Path({TRACE!r}).touch()


class Env:
    def __init__(self, *args, **options):
        pathlib.Path({TRACE!r}).touch()
"""

Config = dict[str, Any]


def _env(target: str, **arguments: Any) -> Config:
    return {"env": {"_target_": target, **arguments}}


def _cartpole(**arguments: Any) -> Config:
    return {"env": {**CARTPOLE, **arguments}}


def _wrappers(*wrappers: Any) -> Config:
    return _cartpole(wrappers=list(wrappers))


def _agent(**arguments: Any) -> Config:
    return {"agent": {"_target_": "rl.agents.RecurrentPPOLSTM", **arguments}}


CONFIGS: dict[str, Config] = {
    # what a node may name
    "a nested target": _env("envs.t_maze.TMaze", length=CALL),
    "a target by position": _env("envs.t_maze.TMaze", _args_=[POSITIONAL]),
    "a target that is a function of os": _env("os.system", command=SHELL),
    "a target of the standard library": _env("subprocess.check_call", args=["touch", TRACE]),
    "a target deep in a list": _env("envs.t_maze.TMaze", length=[[{"deep": POSITIONAL}]]),
    "a partial target": _env("functools.partial", _args_=[CALL]),
    "a target made by interpolation": {"run_dir": "os.system", "env": {"_target_": "${run_dir}", "command": SHELL}},
    "a target put together": {"device": "os", "env": {"_target_": "${device}.system", "command": SHELL}},
    "Hydra's own call": _env("hydra.utils.call", config=CALL),
    "Hydra's own instantiate": _env("hydra._internal.instantiate._instantiate2.instantiate", config=CALL),
    "Hydra's get_method": _env("hydra.utils.get_method", path=f"{FOLDER}.evil.Env"),
    "builtins": _env("builtins.exec", _args_=[f"open({TRACE!r}, 'w')"]),
    # modules of the stranger
    "a module in the run folder": _env(f"{FOLDER}.evil.Env"),
    "an id whose module lies in the run folder": _cartpole(id=f"{FOLDER}.evil:CartPole-v1"),
    "a module in the working folder": _env("evil.Env"),
    "an id whose module lies in the working folder": _cartpole(id="evil:CartPole-v1"),
    "a folder that trusts itself": {"trust": ["evil", FOLDER, "os"], **_env("evil.Env")},
    "a folder that trusts itself by a text": {"trust": "evil", **_cartpole(id="evil:CartPole-v1")},
    "a PettingZoo module": _env("envs.pettingzoo_env.make_pettingzoo", id="evil"),
    # what our own modules and gymnasium's have imported
    "os behind a module of ours": _env("rl.checkpoint.os.system", command=SHELL),
    "os behind another module of ours": _env("envs.workers.os.system", command=SHELL),
    "importlib behind a module of ours": _env("envs.gymnasium_env.importlib.import_module", name="evil"),
    "our own importer": _env("envs.gymnasium_env.resolve_wrapper", wrapper="evil.Env"),
    "our own importer of trusted code": _env("rl.trust.import_trusted", path="evil.Env", trust=["evil"]),
    "subprocess behind gymnasium": _env("gymnasium.utils.seeding.np.f2py.os.system", command=SHELL),
    "os behind gymnasium": _env("gymnasium.logger.sys.modules.get", _args_=["os"]),
    "gymnasium.make": _env("gymnasium.make", id="evil:CartPole-v1"),
    "gymnasium.make_vec": _env("gymnasium.make_vec", id="evil:CartPole-v1"),
    "gymnasium's loader": _env("gymnasium.envs.registration.load_env_creator", name="evil:Env"),
    "gymnasium's vector of calls": _env("gymnasium.vector.SyncVectorEnv", env_fns=[CALL | {"_partial_": True}]),
    "gymnasium's register": _env("gymnasium.register", id="CartPole-v1", entry_point="evil:Env"),
    # wrappers
    "wrappers that call": _wrappers(
        {"path": "unittest.mock.Mock", "return_value": SHELL}, "operator.call", "os.system"
    ),
    "a wrapper of the stranger": _wrappers("evil.Env"),
    "a wrapper by target": _wrappers({"_target_": "evil.Env"}),
    "a wrapper with a nested target": _wrappers({"path": "gymnasium.wrappers.TransformReward", "func": CALL}),
    "a wrapper behind a module of ours": _wrappers({"path": "rl.checkpoint.os.system", "command": SHELL}),
    "a wrapper that is a partial": _wrappers({"path": "functools.partial", "func": POSITIONAL}),
    # agents, cores, what learns from recordings
    "an agent of the stranger": {"agent": CALL},
    "an agent in the run folder": {"agent": {"_target_": f"{FOLDER}.evil.Env"}},
    "a core of the stranger": _agent(core={"_target_": "evil.Env"}),
    "a core that calls": _agent(core={**CALL, "_partial_": True}),
    "a core with a nested target": _agent(core={"_target_": "rl.cores.lstm", "hidden_size": CALL}),
    "a hyperparameter that is a target": _agent(learning_rate=CALL),
    "members of a population": {
        "agent": {"_target_": "rl.agents.Population", "seats": ["first"], "members": {"first": CALL}},
    },
    "a core of a member": {
        "agent": {
            "_target_": "rl.agents.Population",
            "seats": ["first"],
            "members": {"first": {"_target_": "rl.agents.RecurrentPPOLSTM", "core": {"_target_": "evil.Env"}}},
        },
    },
    "keys at the top": {"seed": CALL, "threads": POSITIONAL},
    "callbacks of Hydra": {"hydra": {"callbacks": {"own": {"_target_": "evil.Env"}}}, **_env("evil.Env")},
}
TEXTS = {
    "a Python tag of YAML": f"!!python/object/apply:os.system [{SHELL!r}]\n",
    "a Python name of YAML": "env: !!python/name:os.system\n",
    "a new object of YAML": f"env: !!python/object/new:os.system [{SHELL!r}]\n",
    "a module of YAML": "env: !!python/module:evil\n",
}


class Payload:
    """An object whose pickle runs a command where it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Return what the reader is to call."""
        return os.system, (SHELL,)


def make_pickles() -> dict[str, bytes]:
    """Return checkpoints that run a command if a plain unpickler reads them."""
    zipped, entry, legacy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(Payload(), zipped)
    torch.save({"agent": Payload()}, entry)
    torch.save({"agent": Payload()}, legacy, _use_new_zipfile_serialization=False)
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"agent": Payload()}))
        archive.writestr("archive/version", "3")
    return {
        "a pickle": pickle.dumps({"agent": Payload()}),
        "an archive of torch": zipped.getvalue(),
        "an entry of an archive": entry.getvalue(),
        "an archive of an old torch": legacy.getvalue(),
        "an archive by hand": script.getvalue(),
    }


def write_modules(folder: Path) -> None:
    """Put the stranger's module into the run folder and beside it."""
    for place in (folder, folder / FOLDER):
        (place / "evil.py").write_text(MODULE)

"""Take over an agent that sb3-contrib has trained: its zip becomes a run folder of this project.

python -m experiments.from_sb3 model=model.zip env=cartpole_no_velocity run_dir=runs/taken_over
python -m experiments.from_sb3 model=model.zip vec_normalize=vecnormalize.pkl

What the files hold is data: none of it is executed, and stable-baselines3 need not be installed.
"""

import logging
import shlex
from contextlib import closing
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.arguments import load_defaults
from experiments.launch.build import SETTINGS, build
from experiments.launch.check import ConfigError, construct, convert
from experiments.launch.claim import claim_folder
from experiments.launch.command import launch
from experiments.launch.escape import to_config
from experiments.launch.run_folder import write_config
from rl.agents import RecurrentPPOLSTM
from rl.foreign import from_sb3, read_sb3
from rl.training.run import checkpoint_path

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Read the zip and fill the run folder.

    Raises:
        ConfigError, ValueError, OSError: the agent cannot be taken over, or not into that folder.
    """
    if config.model is None:
        raise ConfigError("model is missing: give model=FILE.zip, what model.save of sb3-contrib has written")
    model, vec_normalize = (
        convert(config.model, str, "model"),
        convert(config.vec_normalize, str | None, "vec_normalize"),
    )
    with claim_folder("from_sb3", config, f"from-sb3-seed{config.seed}") as folder:
        num_envs = int(read_sb3(model).data.get("n_envs", 1))
        agent = from_sb3(model, vec_normalize, num_envs, seed=convert(config.seed, int, "seed"))
        node = make_node(agent.construction["arguments"])
        whole = complete_config(config, agent, node)
        folder.begin("train.log")
        write_config(folder.path, whole)
        agent.save(checkpoint_path(folder.path))
        for line in [
            f"{agent.num_parameters} parameters after {agent.env_steps} steps: {folder.path}",
            *agent.describe(),
        ]:
            log.info(line)
        sizes = f"num_envs={agent.num_envs}", f"num_steps={agent.num_steps}"  # which minibatches and bptt fit
        start = "python", "-m", "experiments.train", f"init_from={folder.path}"
        words = shlex.join([*start, *sizes, *list_overrides(node)])
        log.info("train it further, with keys of train and env=... beside these: %s", words)


def make_node(arguments: dict[str, Any]) -> dict[str, Any]:
    """Make the node of an agent of what its constructor was given, but for what the top of a configuration holds."""
    found: dict[str, Any] = {"_target_": "rl.agents.RecurrentPPOLSTM"}
    for name, value in arguments.items():
        if isinstance(value, dict) and "call" in value:
            package, _, function = value["call"].rpartition(".")  # rl.cores.lstm.lstm is rl.cores.lstm, too
            found[name] = {"_target_": f"{package.rpartition('.')[0]}.{function}", **value["kwargs"]}
            if name == "encoder":
                found[name]["_partial_"] = True  # as in conf/agent/encoder
        elif name not in SETTINGS and not isinstance(value, dict):
            found[name] = value
    return found


def complete_config(config: DictConfig, agent: RecurrentPPOLSTM, node: dict[str, Any]) -> DictConfig:
    """Return the configuration of a run with this agent, once it is known that the agent can be built of it.

    Raises:
        ConfigError: the environment has other spaces than the agent.
    """
    defaults = load_defaults("train")
    given = {"seed": config.seed, "num_envs": agent.num_envs, "num_steps": agent.num_steps}
    settings = {key: given.get(key, defaults[key]) for key in SETTINGS}
    whole = to_config({**settings, "agent": node, "env": config.get("env"), "init_from": None, "trust": []})
    spaces = {"observation_space": agent.observation_space, "action_space": agent.action_space}
    if config.get("env") is None:
        runtime = {name: settings[name] for name in ("num_envs", "num_steps", "seed")}
        again, complete = construct(whole.agent, "agent", **runtime, **spaces)
        whole = to_config({**OmegaConf.to_container(whole, resolve=True), "agent": complete})  # type: ignore[dict-item]
    else:
        with closing(build(whole, playing=True, at_most=1)) as parts:
            for name, own in spaces.items():
                there = getattr(parts.envs, f"single_{name}")
                if there != own:
                    raise ConfigError(f"env has the {name} {there}, but the agent was trained with {own}")
            again, whole = parts.agent, parts.config
    again.load_state_dict(agent.state_dict())
    return whole


def list_overrides(node: dict[str, Any]) -> list[str]:
    """List the arguments of a command line that choose an agent of the same shape and settings."""
    found = []
    parameters = RecurrentPPOLSTM.__signature__.parameters
    for name, value in node.items():
        if isinstance(value, dict):
            group = "+agent/core@agent.critic_core" if name == "critic_core" else f"agent/{name}"
            found.append(f"{group}={value['_target_'].rpartition('.')[2]}")
            parts = {key: part for key, part in value.items() if not key.startswith("_") and part is not None}
            found += [f"agent.{name}.{key}={part}" for key, part in parts.items()]
        elif name != "_target_" and value != parameters[name].default:
            found.append(f"agent.{name}={str(value).lower().replace(' ', '')}")
    return found


def main() -> None:
    """Run the command."""
    launch(run, "from_sb3")


if __name__ == "__main__":
    main()

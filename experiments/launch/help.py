"""What ``--help`` and ``--cfg job`` print: a command, its groups, and every key with its value and its meaning."""

import argparse
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf, open_dict

import conf
from envs.wrapping import wrap_many, wrap_one
from experiments.launch.check import ConfigError, check_node, import_path, load_yaml, to_dict
from experiments.launch.escape import to_config

GIVEN = {
    "agent": ("observation_space", "action_space", "num_envs", "num_steps", "total_steps", "seed", "device"),
    "env": ("num_envs",),
    "core": ("input_size",),
    "encoder": ("input_shapes",),
}
"""Arguments that a command itself sets, by the last part of the place of a node."""

OPTIONS = """\
--cfg job     print the configuration that this command line would run, every default filled in, and run nothing
--multirun    run all combinations of values that are parted by commas: seed=1,2,3
--config-dir  a folder with YAML files of your own, beside those of conf/
--shell-completion install=bash  print what completes keys and names in bash (zsh, fish): eval "$(...)" installs it
HYDRA_FULL_ERROR=1 in the environment shows the traceback behind the sentence of a fault."""


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read Hydra's options wherever they stand among the arguments.

    Returns:
        What they say, and ``overrides``; then the options as they were written.

    Raises:
        ConfigError: there is no such option, or it lacks its value.
    """
    with redirect_stderr(io.StringIO()) as said:  # argparse prints a page of usage and ends the process
        try:
            given = get_args_parser().parse_intermixed_args(arguments)
        except SystemExit as end:
            if not end.code:
                raise
            reason = said.getvalue().strip().rpartition("error: ")[2]
            unknown = reason.removeprefix("unrecognized arguments: ")
            if unknown != reason:
                reason = f"there is no option {unknown}: keys are given as KEY=VALUE, --help names them"
            raise ConfigError(" ".join(reason.split())) from None
    options, waiting = [], list(given.overrides)
    for argument in arguments:
        if waiting and argument == waiting[0]:
            del waiting[0]
        else:
            options.append(argument)
    return given, options


def answer(
    given: argparse.Namespace,
    run: Callable[[DictConfig], Any],
    config_name: str,
    check: Callable[[DictConfig, str], None],
) -> bool:
    """Print what ``--help`` or ``--cfg job`` asks for.

    Args:
        given: from ``parse_options``.
        run: the command's entry, whose module says what it does.
        config_name: the command's name and that of its YAML file.
        check: of the keys of a configuration.

    Returns:
        Whether the command line asks for one of them.
    """
    shows_job = given.cfg == "job" and not given.package
    if given.help or shows_job:
        with _composed(config_name, given) as config:
            task = OmegaConf.masked_copy(config, [key for key in map(str, config) if key != "hydra"])
            check(task, config_name)
            if given.help:
                purpose = sys.modules[run.__module__].__doc__ or ""
                print(describe_command(task, config_name, purpose, config.hydra.runtime.choices, given.config_dir))
            else:
                print(OmegaConf.to_yaml(fill_defaults(task), resolve=given.resolve), end="")
    return bool(given.help or shows_job)


@contextmanager
def _composed(config_name: str, given: argparse.Namespace) -> Iterator[DictConfig]:
    """While open, Hydra is there to be asked; the configuration that a command line composes, with ``hydra`` in it."""
    places = list(OmegaConf.select(OmegaConf.load(_file(config_name)), "hydra.searchpath") or ())
    if given.config_dir:
        places.append(f"file://{Path(given.config_dir).absolute()}")
    more = [f"hydra.searchpath=[{','.join(places)}]"] if given.config_dir else []
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3", job_name=config_name):
        yield compose(config_name, [*given.overrides, *more], return_hydra_config=True)


def fill_defaults(config: DictConfig) -> DictConfig:
    """Return a configuration in which every node has the defaults of what it constructs, as a run would have it."""
    with open_dict(config):
        for key, node in _find_nodes(config).items():
            OmegaConf.update(config, key, to_config(check_node(to_dict(node), key, GIVEN.get(key, ()))), merge=False)
    return config


def describe_command(
    config: DictConfig, config_name: str, purpose: str, choices: dict[str, str | None], own: str | None = None
) -> str:
    """Return the help page of a command.

    Args:
        config: composed from the command line.
        config_name: the command's name and that of its YAML file.
        purpose: what the command does, with examples.
        choices: the file that was chosen of each group.
        own: the user's folder of YAML files.
    """
    comments = {key: said for name in list_files(config_name) for key, said in read_comments(_read(name)).items()}
    nodes = _find_nodes(config)
    groups = {key.partition("@")[0]: {choice} for key, choice in choices.items() if not key.startswith("hydra/")}
    if "observers" in config:  # of which several are chosen; Hydra does not tell
        groups["observers"] = {*map(str, config.observers)}
    parts = [purpose.strip()]
    if groups:
        loader = GlobalHydra.instance().config_loader()
        rows = []
        for name, chosen in groups.items():
            files = Path(own, name).glob("*.yaml") if own else ()
            options = {*loader.get_group_options(name, ObjectType.CONFIG), *(file.stem for file in files)}
            rows.append((name, ", ".join(f"[{each}]" if each in chosen else each for each in sorted(options))))
        parts.append("Groups, GROUP=NAME, the chosen one in brackets:\n" + _tabulate(rows))
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    rest = {str(key): value for key, value in raw.items() if key not in (*nodes, *groups)}
    rows = [(f"{key}={_show(value)}", comments.get(key, "")) for key, value in rest.items()]
    parts.append("Keys, KEY=VALUE:\n" + _tabulate(rows))
    for key, own_node in nodes.items():
        filled = check_node(to_dict(own_node), key, GIVEN.get(key, ()))
        for where, node in _list_nodes(filled, key):
            parts.append(f"{where}, {node['_target_']}:\n" + _tabulate(_describe_node(node, where)))
    return "\n\n".join([*parts, OPTIONS])


def _describe_node(node: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """Return each key of a node with its value, and what the docstring of its target says of it."""
    target = import_path(node["_target_"])
    meanings = (read_arguments(wrap_many) | read_arguments(wrap_one) if where == "env" else {}) | read_arguments(target)
    values = {key: value for key, value in node.items() if not _has_nodes(value) and not key.startswith("_")}
    given = GIVEN.get(where.rpartition(".")[2], GIVEN["agent"] if ".members." in where else ())
    for key, parameter in inspect.signature(target).parameters.items():
        if key not in (*node, *given) and parameter.kind is not parameter.VAR_KEYWORD:
            values[key] = None if parameter.default is parameter.empty else parameter.default
    known = gymnasium.registry.get(str(node.get("id")))
    if known is not None and known.entry_point is not None:  # Gymnasium's environment takes what the function does not
        creator = load_env_creator(known.entry_point) if isinstance(known.entry_point, str) else known.entry_point
        meanings = read_arguments(creator) | meanings
        for key, parameter in inspect.signature(creator).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.default is not parameter.empty:
                values.setdefault(key, known.kwargs.get(key, parameter.default))
    told = {key: meanings.get(key) or find_sentence(target.__doc__ or "", key) for key in values}
    return [(f"{where}.{key}={_show(value)}", told[key]) for key, value in values.items()]


def read_arguments(target: Any) -> dict[str, str]:
    """Return what docstrings say of the arguments of a class or function, those that it passes on included."""
    sources = [*inspect.getmro(target)] if isinstance(target, type) else [target]
    sources += [source.algorithm for source in sources if hasattr(source, "algorithm")]
    found: dict[str, str] = {}
    for source in sources:
        doc = inspect.cleandoc(source.__doc__ or "")
        section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
        lines = textwrap.dedent(section[1]) if section else ""
        for name, text in re.findall(r"^\**(\w+)[^:\n]*:((?:.*\n?)(?:[ \t]+.*\n?)*)", lines, re.MULTILINE):
            found.setdefault(name, " ".join(text.split()))
    return found


def find_sentence(doc: str, key: str) -> str:
    """Return the first sentence of a docstring in which an argument is named, for those without a line of their own."""
    sentences = re.split(r"(?<=[.;:])\s+", " ".join(doc.split()))
    return next((sentence for sentence in sentences if re.search(rf"``{key}\b", sentence)), "")


def read_comments(text: str) -> dict[str, str]:
    """Return the comments behind the keys at the top of a YAML file."""
    return dict(re.findall(r"^(\w+):.*?(?: # (.*))?$", text, re.MULTILINE))


def _list_nodes(node: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a node and the nodes inside it with their places."""
    if "_target_" in node:
        yield where, node
    for key, value in node.items():
        if _has_nodes(value):
            yield from _list_nodes(value, f"{where}.{key}")


def _has_nodes(value: Any) -> bool:
    return isinstance(value, dict) and ("_target_" in value or any(map(_has_nodes, value.values())))


def _find_nodes(config: DictConfig) -> dict[str, DictConfig]:
    """Return the nodes at the top of a configuration, and those of which there are several of a kind, by place."""
    found = {}
    for key, value in config.items_ex(resolve=False):
        if _is_node(value):
            found[str(key)] = value
        elif isinstance(value, DictConfig) and not value._is_none():
            found |= {f"{key!s}.{name!s}": part for name, part in value.items_ex(resolve=False) if _is_node(part)}
    return found


def _is_node(value: Any) -> bool:
    return isinstance(value, DictConfig) and not value._is_none() and "_target_" in value


def _show(value: Any) -> str:
    """Write a value as it stands on a command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_show, value))}]"
    return str(getattr(value, "__name__", value))


def _tabulate(rows: list[tuple[str, str]]) -> str:
    """Return two columns, the second one folded."""
    width = min(120, shutil.get_terminal_size().columns)
    left = min(max((len(first) for first, _ in rows), default=0) + 2, 42)
    lines = []
    for first, second in rows:
        folded = textwrap.wrap(second, max(30, width - left - 2)) or [""]
        head = f"  {first:<{left}}" if len(first) < left else f"  {first}\n{'':{left + 2}}"
        lines.append((head + f"\n{'':{left + 2}}".join(folded)).rstrip())
    return "\n".join(lines)


def list_files(config_name: str) -> list[str]:
    """Return the names of a YAML file of ``conf`` and of those that it takes in whole, its own last."""
    parts = load_yaml(_file(config_name)).get("defaults", ())
    taken = [name for part in parts if isinstance(part, str) and part != "_self_" for name in list_files(part)]
    return [*taken, config_name]


def _read(config_name: str) -> str:
    return _file(config_name).read_text()


def _file(config_name: str) -> Path:
    return Path(conf.__file__).parent / f"{config_name}.yaml"

"""Watch a trained agent: episodes as videos or as one page, beside them what the memory holds at every step.

python -m experiments.watch run=RUN_DIR episodes=3 output=video.mp4
python -m experiments.watch run=RUN_DIR zero_at=5 output=page.html   # and what becomes of them without the memory
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.build import build, build_envs
from experiments.launch.check import ConfigError, convert, prepare_output
from experiments.launch.command import launch
from experiments.launch.elsewhere import check_spaces, list_overrides, override_env
from experiments.launch.evaluations import EVALUATION_SEED
from experiments.launch.run_folder import choose_checkpoint, load_run_config, name_env
from experiments.watching.environments import can_draw, make_camera, open_drawn_envs
from experiments.watching.page import Images, import_pillow, make_page
from experiments.watching.panels import Pair
from experiments.watching.video import SUFFIXES, Packed, import_moviepy, write_video
from rl.checkpoint import write_text
from rl.checks import positive, whole, within
from rl.training.watching import WatchedEpisode, check_watchable, watch_episode
from rl.types import Agent

FPS = 5  # where neither the command line nor the environment says more


@dataclass(frozen=True)
class Request:
    """What to watch, see ``conf/watch.yaml``; ``outputs`` are the files to write."""

    episodes: int
    zero_at: int | None
    greedy: bool
    max_steps: int
    fps: float | None
    seed: int
    outputs: list[Path]

    @property
    def filming(self) -> bool:
        """Whether videos are wanted, not a page."""
        return self.outputs[0].suffix in SUFFIXES


def run(config: DictConfig) -> float:
    """Play the episodes, write them and print a line for each.

    Returns:
        Their mean return with the memory kept.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    request = read_request(config)
    stored, given = load_run_config(config.run, config.get("trust")), config.get("env")
    OmegaConf.update(stored, "device", config.device)
    overrides = list_overrides(given)
    checkpoint, here = choose_checkpoint(config), Path.cwd()  # an environment may change the working folder
    assert checkpoint is not None  # of a run that is given
    with closing(build(stored, playing=True, at_most=1)) as parts:
        agent, envs = parts.agent, parts.envs
        check_watchable(agent)
        agent.load(here / checkpoint)
        spaces, drawn = (envs.single_observation_space, envs.single_action_space), can_draw(envs)
    if overrides:
        stored = override_env(stored, given)
        elsewhere = build_envs(stored, at_most=1)
        close(elsewhere)
        there = elsewhere.single_observation_space, elsewhere.single_action_space
        check_spaces(there, spaces, overrides)
        drawn = can_draw(elsewhere)
    if request.filming and not drawn:
        raise ConfigError(f"output={config.output}: {name_env(stored.env)} draws no pictures: give output=page.html")
    envs = open_drawn_envs(stored, drawn)
    try:
        title = f"{agent.model_name} in {', '.join([name_env(stored.env), *overrides])}"
        notes = describe(agent, checkpoint, request)
        print(f"{title}\n{notes[0]}\n")
        pairs = film(agent, envs, request, title) if request.filming else draw_page(agent, envs, request, title, notes)
    finally:
        close(envs)
    return float(np.mean([pair.kept.total for pair in pairs]))


def read_request(config: DictConfig) -> Request:
    """Read what is to be watched, and find out whether it can be written.

    Raises:
        ConfigError, ValueError: a value is of another type or out of range, or there is a file already.
        ImportError: a package that writes it is not installed.
    """
    kinds: dict[str, Any] = {"episodes": int, "zero_at": int | None, "greedy": bool, "max_steps": int}
    kinds |= {"fps": float | None, "seed": int}
    values = {name: convert(config[name], kind, name) for name, kind in kinds.items()}
    output, overwrite = convert(config.output, str, "output"), convert(config.overwrite, bool, "overwrite")
    positive(episodes=values["episodes"], max_steps=values["max_steps"])
    within(0, 2**31, seed=values["seed"])
    if values["zero_at"] is not None:
        whole(0, zero_at=values["zero_at"])
    if values["fps"] is not None:
        within(0.1, 240, fps=values["fps"])
    suffix = Path(output).suffix
    if suffix not in (*SUFFIXES, ".html"):
        raise ConfigError(f"output={output}: it must end in .html, .mp4 or .gif")
    (import_moviepy if suffix in SUFFIXES else import_pillow)()
    target = prepare_output(output, "output").absolute()
    outputs = [target]
    if suffix in SUFFIXES and values["episodes"] > 1:
        outputs = [target.with_stem(f"{target.stem}-{number}") for number in range(1, values["episodes"] + 1)]
    for path in outputs:
        if path.exists() and not overwrite:
            raise ConfigError(f"output={output}: {path.name} is there already: overwrite=true replaces it")
    return Request(**values, outputs=outputs)


def describe(agent: Agent, checkpoint: Path, request: Request) -> list[str]:
    """Return what there is to say of what is shown, a sentence each."""
    policy = "likeliest actions" if request.greedy else "sampled actions"
    notes = [f"After {agent.env_steps:,} steps of training ({checkpoint.name}), {policy}."]
    if request.zero_at is not None:
        notes.append(
            f"Each episode is played twice on one seed: with the memory kept, and zeroed before every step from step "
            f"{request.zero_at} on (dashed)."
        )
    return notes


def play(agent: Agent, envs: VectorEnv, request: Request, draw: Callable[[], Any] | None) -> Iterator[Pair]:
    """Play the episodes one by one, each with the memory kept and, if that is asked for, zeroed; print what came of it.

    Args:
        agent: with its weights.
        envs: to play in.
        request: how to play.
        draw: draws a picture.
    """
    print(f"{'episode':>7}{'seed':>12}{'steps':>8}{'return':>10}{'zeroed':>10}")
    options: dict[str, Any] = {"greedy": request.greedy, "max_steps": request.max_steps, "draw": draw}
    for number in range(request.episodes):
        seed = EVALUATION_SEED + request.seed + number
        kept = watch_episode(agent, envs, seed, **options)
        zeroed = None
        if request.zero_at is not None:
            zeroed = watch_episode(agent, envs, seed, zero_at=request.zero_at, **options)
        other = "-" if zeroed is None else f"{zeroed.total:.3f}"
        notes = describe_ends(kept, zeroed, request)
        print(f"{number + 1:>7}{seed:>12}{kept.length:>8}{kept.total:>10.3f}{other:>10}{notes}")
        yield Pair(seed, kept, zeroed)


def describe_ends(kept: WatchedEpisode, zeroed: WatchedEpisode | None, request: Request) -> str:
    """Return what is special about the end of an episode, to be printed behind its line."""
    notes = []
    if any(track.end == "cut" for track in kept.tracks):
        notes.append(f"cut after max_steps={request.max_steps}")
    if zeroed is not None and request.zero_at is not None and request.zero_at >= kept.length:
        notes.append(f"over before step {request.zero_at}")
    return f"  {', '.join(notes)}" if notes else ""


def choose_fps(envs: VectorEnv, request: Request) -> float:
    """Return how many steps are shown in a second."""
    return request.fps or float(envs.metadata.get("render_fps") or FPS)


def film(agent: Agent, envs: VectorEnv, request: Request, title: str) -> list[Pair]:
    """Write a video of each episode; return the episodes, without their pictures."""
    draw, pairs = make_camera(envs, Packed.pack), []
    if draw is None:
        raise ConfigError(f"{title}: the environment draws no pictures: give output=page.html")
    for path, pair in zip(request.outputs, play(agent, envs, request, draw), strict=True):
        returns = " and ".join(f"{episode.total:.4g}" for episode in pair.both)
        heading = f"{title}\nreturn {returns}" + (" with the memory zeroed (dashed)" if pair.zeroed else "")
        write_video(path, pair, heading, choose_fps(envs, request), request.zero_at)
        for episode in pair.both:
            episode.pictures = []
        pairs.append(pair)
    print("\n" + "\n".join(str(path) for path in request.outputs))
    return pairs


def draw_page(agent: Agent, envs: VectorEnv, request: Request, title: str, notes: list[str]) -> list[Pair]:
    """Write the page of all episodes; return them."""
    images = Images()
    draw = make_camera(envs, images.keep)
    if draw is None:
        notes = [*notes, "The environment draws no pictures: its observations are shown as numbers."]
    pairs = list(play(agent, envs, request, draw))
    if any("mean_q" in track.curves for pair in pairs for track in pair.kept.tracks):
        notes = [*notes, "A quantile network has no distribution of actions: the mean value of all actions is shown."]
    page = make_page(title, notes, pairs, images.texts, choose_fps(envs, request), request.zero_at)
    write_text(request.outputs[0], page)
    print(f"\n{request.outputs[0]} ({len(page) / 1e6:.2f} MB)")
    return pairs


def main() -> None:
    """Run the command."""
    launch(run, "watch")


if __name__ == "__main__":
    main()

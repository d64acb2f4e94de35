"""Try what can go wrong, hundreds of times, and write the page that says how often it did.

python -m experiments.reliability                                      # all kinds; a quarter of an hour on two cores
python -m experiments.reliability kinds=[kills,damage] share=0.2       # a fifth of the tries of two kinds
python -m experiments.reliability only=damage-017                      # a single try, by its name on the page
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from experiments.launch.check import ConfigError, choose_names, convert, prepare_output
from experiments.launch.command import launch
from experiments.reliability import damage, disk, environments, hostile, kills, mistakes, ranks, signals
from experiments.reliability.judge import Fault
from experiments.reliability.page import Part, format_page
from experiments.reliability.processes import import_commands
from experiments.reliability.recipes import prepare
from experiments.reliability.tries import Outcome, Try, choose, run_all
from rl.checks import positive, whole, within


@dataclass(frozen=True)
class Settings:
    """The keys of ``reliability.yaml``, which says what they mean."""

    kinds: list[str]
    only: str | None
    share: float
    seed: int
    kills: int
    ranks: int
    signals: int
    damage: int
    processes: int
    page: Path | None


KINDS: dict[str, tuple[str, Callable[[Settings], list[Try]]]] = {
    "kills": (kills.WORDS, lambda s: kills.list_tries(s.kills, s.seed)),
    "ranks": (ranks.WORDS, lambda s: ranks.list_tries(s.ranks, s.seed)),
    "signals": (signals.WORDS, lambda s: signals.list_tries(s.signals, s.seed)),
    "disk": (disk.WORDS, lambda s: disk.list_tries(s.seed)),
    "environments": (environments.WORDS, lambda s: environments.list_tries()),
    "command_lines": (mistakes.WORDS, lambda s: mistakes.list_tries()),
    "damage": (damage.WORDS, lambda s: damage.list_tries(s.damage, s.seed)),
    "hostile": (hostile.WORDS, lambda s: hostile.list_tries()),
}


def run(config: DictConfig) -> int:
    """Try, print, write the page.

    Returns:
        The number of failures.

    Raises:
        ConfigError: there is a failure, or no try of the name that is asked for.
    """
    settings = read_settings(config)
    chosen = [tried for name in settings.kinds for tried in choose_tries(name, settings)]
    if not chosen:
        raise ConfigError(f"only={settings.only}: there is no such try; names are such as damage-017")
    import_commands()
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder, tqdm(total=len(chosen), disable=None) as bar:
        try:
            prepare(Path(folder) / "prepared")
        except Fault as fault:
            raise ConfigError(f"nothing can be tried, since an undisturbed command fails: {fault}") from fault
        for outcome in run_all(chosen, Path(folder) / "prepared", settings.processes):
            outcomes.append(outcome)
            bar.update()
            if outcome.fault is not None:
                tqdm.write(f"{outcome.tried.name} ({outcome.tried.label}): {outcome.fault}")
    parts = [Part(KINDS[name][0], name, [o for o in outcomes if o.tried.kind == name]) for name in settings.kinds]
    for part in parts:
        print(f"{part.kind:<14}{len(part.outcomes):>5} tries{len(part.failed):>5} failures{part.seconds:>7.0f} s")
    minutes = (time.monotonic() - began) / 60
    if settings.page is not None and settings.only is None and len(parts) == len(KINDS):
        cores = len(os.sched_getaffinity(0))
        settings.page.write_text(format_page(parts, settings.share, minutes, settings.processes, cores))
    failures = sum(outcome.fault is not None for outcome in outcomes)
    if failures:
        raise ConfigError(f"{failures} of {len(outcomes)} tries failed")
    return failures


def choose_tries(kind: str, settings: Settings) -> list[Try]:
    """Return the tries of a kind that are asked for."""
    tries = KINDS[kind][1](settings)
    if settings.only is not None:
        return [tried for tried in tries if tried.name == settings.only]
    return choose(tries, settings.share, settings.seed)


def read_settings(config: DictConfig) -> Settings:
    """Read the keys of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type, or out of range.
    """
    counts = {name: convert(config[name], int, name) for name in ("kills", "ranks", "signals", "damage", "processes")}
    positive(**counts)
    share, seed = convert(config.share, float, "share"), convert(config.seed, int, "seed")
    within(0.001, 1, share=share)
    whole(0, 2**31, seed=seed)
    page = convert(config.page, str | None, "page")
    return Settings(
        kinds=choose_names(config.kinds, KINDS, "kinds", "kind"),
        only=convert(config.only, str | None, "only"),
        share=share,
        seed=seed,
        page=None if page is None else prepare_output(page, "page"),
        **counts,
    )


def main() -> None:
    """Run the command."""
    launch(run, "reliability")


if __name__ == "__main__":
    main()

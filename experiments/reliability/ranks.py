"""Runs on two ranks of which one is killed at a random moment, and resumed on one rank or on two."""

import os
import signal
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.reliability.judge import Fault, check_ended, check_no_temporary, check_success
from experiments.reliability.processes import Ended, Running, start
from experiments.reliability.recipes import RECIPES, check_finished, check_same_weights, read_seconds
from experiments.reliability.tries import Place, Try, draw, number_tries
from rl.training.run import checkpoint_path

WORDS = (
    "SIGKILL to one of two ranks, or to both, at a random moment: the other ends with a sentence; then resumed on one "
    "rank or on two, killed once more or to the end, weights equal to those of an unbroken run in one process"
)
NAMES = ("ppo_in_shards", "iqn_in_shards")
TIMEOUT = "rank_timeout=15"
"""A rank may be killed before it has met the other, who waits so long for it where torchrun does not end them all."""

LOST = "has ended, or has not answered"


def list_tries(count: int, seed: int) -> list[Try]:
    """List kills of the recipes in turn: which rank, at which share of the time, and on how many ranks it goes on."""
    found = []
    for number in range(count):
        random, name = draw(seed, "ranks", number), NAMES[number % len(NAMES)]
        kills = [
            (2, random.choice(((0,), (1,), (0, 1))), random.random()),
            *([(random.choice((1, 2)), (0,), random.random())] if random.random() < 0.5 else []),
        ]
        words = " and ".join(f"{len(ranks)} of {world} at {moment:.0%}" for world, ranks, moment in kills)
        last = random.choice((1, 2))
        label = f"{name} killed {words}, ended on {last}"
        found.append((label, partial(kill_and_resume, name=name, kills=kills, last=last)))
    return number_tries("ranks", found)


def kill_and_resume(place: Place, name: str, kills: Sequence[tuple[int, tuple[int, ...], float]], last: int) -> None:
    """Start a run on two ranks, kill, let it go on, and compare it with one that nobody killed.

    Args:
        place: of the try.
        name: of the recipe.
        kills: on how many ranks it goes on, which of them are killed, at which share of the time that the run takes.
        last: ranks that end it.
    """
    recipe, seconds = RECIPES[name], read_seconds(place, name)
    words = recipe.start(place)
    for world, killed, moment in kills:
        kill(start_ranks(words, place.folder, world), killed, moment * seconds)
        begun = checkpoint_path(place.folder / "run").is_file()
        words = recipe.resume("run", TIMEOUT) if begun else [*recipe.start(place), "overwrite=true"]
    for running in start_ranks(words, place.folder, last):
        check_success(running.wait())
    check_finished(place, name)
    check_same_weights(place, name)
    check_no_temporary(place.folder)


def start_ranks(words: Sequence[str], folder: Path, world: int) -> list[Running]:
    """Start a command on so many ranks, as torchrun would."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    names = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def become(rank: int) -> None:
        own = names | {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "none"}
        os.environ.update({name: str(value) for name, value in own.items()})

    return [start(words, folder, partial(become, rank)) for rank in range(world)]


def kill(running: list[Running], ranks: Sequence[int], after: float) -> None:
    """Kill some of the ranks, and check how the others end.

    Raises:
        Fault: one of them hangs, or ends without a word, or something is left of one.
    """
    end = time.monotonic() + after
    while time.monotonic() < end and not any(each.ended for each in running):
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))
    done = [each.ended for each in running]
    for rank in ranks:
        running[rank].send(signal.SIGKILL)
    for rank, each in enumerate(running):
        ended = each.wait()
        if rank not in ranks and not any(done):
            check_lost(ended)
        elif ended.left:
            raise Fault(f"{ended.left} processes outlived rank {rank}")


def check_lost(ended: Ended) -> None:
    """Check that a rank that has lost another ended with a sentence, unless it had nothing left to ask it.

    Raises:
        Fault: it did not.
    """
    check_ended(ended)
    if ended.code != 0 and not (ended.code == 1 and LOST in ended.err):
        raise Fault(f"exit code {ended.code} of a rank that lost another: {ended.err[-300:]}")

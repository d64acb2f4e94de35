"""Train a model of characters: its settings, and everything that one configuration stands for."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from experiments.char_lm.model import SequenceModel, measure_bits, sample, train_step
from experiments.char_lm.stored import load_weights
from experiments.char_lm.text import (
    Alphabet,
    Block,
    cut_streams_forever,
    draw_windows_forever,
    read_text,
    split_text,
)
from experiments.launch.build import check_device
from experiments.launch.check import ConfigError, check_node, convert, to_dict
from experiments.launch.escape import to_config
from rl.agents.construction import drawing_from
from rl.checkpoint import save_and_keep
from rl.checks import positive, within
from rl.training.metrics import Metrics
from rl.training.run import checkpoint_path, crossed
from rl.training.signals import Stopped, StopSignals

log = logging.getLogger(__name__)

GLOSSARY = {
    "losses/bits_per_char": "mean cross-entropy of the characters of one update",
    "losses/grad_norm": "norm of the gradient before clipping",
    "eval/bits_per_char_carried": "of the held-out text, the state carried from block to block",
    "eval/bits_per_char_zero_state": "the same with every block from the initial state",
    "charts/learning_rate": "of AdamW",
    "charts/chars_per_second": "characters learned from per second of training, evaluations left out",
    "hparam/*": "results of the whole run, for the table in the HPARAMS tab",
}


@dataclass(frozen=True)
class Settings:
    """The keys at the top of ``char_lm.yaml``, which says what they mean."""

    text: str | None
    seed: int
    steps: int
    batch: int
    block: int
    carry: bool
    embedding_size: int
    learning_rate: float
    decay: float
    max_grad_norm: float
    evaluate_every: int | None
    prompt: str | None
    sample_length: int
    temperature: float
    weights: str | None
    device: str
    threads: int


def read_settings(config: DictConfig) -> Settings:
    """Read the keys at the top of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type or out of range.
    """
    settings = Settings(
        **{field.name: convert(config[field.name], field.type, field.name) for field in fields(Settings)}
    )
    positive(
        batch=settings.batch,
        block=settings.block,
        embedding_size=settings.embedding_size,
        threads=settings.threads,
    )
    if settings.evaluate_every is not None:
        positive(evaluate_every=settings.evaluate_every)
    within(0, 2**31, seed=settings.seed)
    within(0, math.inf, steps=settings.steps, sample_length=settings.sample_length)
    within(1e-12, math.inf, learning_rate=settings.learning_rate, max_grad_norm=settings.max_grad_norm)
    within(0.0, 1.0, decay=settings.decay)
    within(0.0, math.inf, temperature=settings.temperature)
    if settings.prompt == "":
        raise ConfigError("prompt is empty: give at least one character, or null for the first one of the text")
    check_device(settings.device)
    return settings


class Training:
    """Text, model and optimiser of one configuration, all checked; ``train`` is the loop.

    Args:
        config: of the command.

    Raises:
        ConfigError, ValueError: a key or value cannot be, or text and stored weights do not fit it.
    """

    def __init__(self, config: DictConfig):
        self.settings = settings = read_settings(config)
        node = check_node(to_dict(config.core), "core", given=("input_size",))
        text = read_text(settings.text)
        learned, held_out = split_text(text, settings.batch, settings.block)
        stored = load_weights(settings.weights)
        self.alphabet = Alphabet(stored["alphabet"] if stored else "".join(sorted(set(text))))
        self.learned, self.held_out = (self.alphabet.encode(part, "text") for part in (learned, held_out))
        self.prompt = self.alphabet.encode(settings.prompt or text[0], "prompt")
        torch.set_num_threads(settings.threads)
        with drawing_from(settings.seed):
            core = instantiate(node | {"_partial_": True})
            self.model = SequenceModel(len(self.alphabet.characters), core, settings.embedding_size)
        if stored:
            self._fill(stored["model"])
        self.model.to(settings.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate, fused=True)
        place = None if settings.text is None else str(Path(settings.text).expanduser().absolute())
        self.config = to_config(to_dict(config) | {"core": node, "text": place})  # found from any folder
        self.core_name = node["_target_"].rpartition(".")[2]
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.step, self.seconds = 0, 0.0
        self.stopped_by: int | None = None
        self.evaluations: list[dict[str, float]] = []

    def _fill(self, weights: dict[str, Tensor]) -> None:
        """Take over stored weights.

        Raises:
            ConfigError: they are those of another model.
        """
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            folder = self.settings.weights
            raise ConfigError(f"weights={folder} has another core or other sizes than this command line") from error

    def get_hparams(self) -> dict[str, Any]:
        """Return the settings and the name of the core, for TensorBoard."""
        return asdict(self.settings) | {"core": self.core_name}

    def read_blocks(self) -> Iterator[Block]:
        """Return what the updates see, without end."""
        batch, block = self.settings.batch, self.settings.block
        if self.settings.carry:
            return cut_streams_forever(self.learned, batch, block)
        return draw_windows_forever(self.learned, batch, block, torch.Generator().manual_seed(self.settings.seed))

    def train(self, run_dir: Path, metrics: Metrics) -> bool:
        """Train to the end, or until a signal asks to stop; what was learned is saved in either case.

        Returns:
            False if a signal stopped it, whose number is ``stopped_by``.
        """
        settings = self.settings
        state = self.model.initial_state(settings.batch)
        with StopSignals() as stop:
            for block in islice(self.read_blocks(), settings.steps):
                began = time.perf_counter()
                self.optimizer.param_groups[0]["lr"] = self.compute_learning_rate()
                state, bits, norm = train_step(self.model, self.optimizer, block, state, settings.max_grad_norm)
                self.seconds += time.perf_counter() - began
                self.step += 1
                self.report(metrics, bits, norm)
                if crossed(settings.evaluate_every, self.step - 1, self.step):
                    with suppress(Stopped), stop.raising():
                        self.measure(metrics)
                    self.save(run_dir)
                if stop.number is not None:
                    break
            self.save(run_dir)
        self.stopped_by = stop.number
        return stop.number is None

    def compute_learning_rate(self) -> float:
        """Return that of the next update: constant, then on a line towards 0, which it would reach one update late."""
        settings = self.settings
        decaying = settings.decay * settings.steps
        left = settings.steps - self.step
        return settings.learning_rate * (left / decaying if left < decaying else 1.0)

    def report(self, metrics: Metrics, bits: float, norm: float) -> None:
        """Send one update's results to TensorBoard and progress bar; without a terminal log a line for each tenth."""
        settings = self.settings
        speed = self.step * settings.batch * settings.block / self.seconds
        curves = {"losses/bits_per_char": bits, "losses/grad_norm": norm, "charts/chars_per_second": speed}
        curves["charts/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        metrics.scalars(curves, self.step)
        metrics.bar.set_postfix_str(f"{bits:.2f} bits per character", refresh=False)
        metrics.bar.update(1)
        if metrics.bar.disable and crossed(max(1, settings.steps // 10), self.step - 1, self.step):
            log.info("%d steps, %.2f bits per character, %.0f characters/s", self.step, bits, speed)

    def measure(self, metrics: Metrics) -> dict[str, float]:
        """Return bits per character of the held-out text, with the state carried and from zero; once for a step."""
        if not self.evaluations or self.evaluations[-1]["step"] != self.step:
            size = self.settings.batch, self.settings.block
            carried = measure_bits(self.model, self.held_out, *size)
            zero_state = measure_bits(self.model, self.held_out, *size, carry=False)
            self.evaluations.append({"step": self.step, "carried": carried, "zero_state": zero_state})
            curves = {"eval/bits_per_char_carried": carried, "eval/bits_per_char_zero_state": zero_state}
            metrics.scalars(curves, self.step)
        return self.evaluations[-1]

    def save(self, run_dir: Path) -> None:
        """Write weights and alphabet, in one file that is whole or not there; the one before is kept.

        Raises:
            FloatingPointError: a weight is not finite; nothing was written.
        """
        for name, weight in self.model.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise FloatingPointError(f"model.{name} holds a number that is not finite: lower learning_rate")
        content = {"model": self.model.state_dict(), "alphabet": self.alphabet.characters, "step": self.step}
        save_and_keep({"agent": content}, checkpoint_path(run_dir))

    def sample(self) -> str:
        """Return text that goes on from the prompt."""
        length, temperature = self.settings.sample_length, self.settings.temperature
        generator = torch.Generator().manual_seed(self.settings.seed)
        return self.alphabet.decode(sample(self.model, self.prompt, length, temperature, generator))

    def summarise(self, metrics: Metrics) -> dict[str, Any]:
        """Return what ``result.json`` holds; ``bits_per_char`` has the memory start as it was trained to."""
        measured = self.measure(metrics)
        return {
            "core": self.core_name,
            "text": self.settings.text,
            "seed": self.settings.seed,
            "parameters": self.num_parameters,
            "characters": len(self.learned) + len(self.held_out),
            "alphabet": len(self.alphabet.characters),
            "steps": self.step,
            "training_seconds": self.seconds,
            "bits_per_char": measured["carried" if self.settings.carry else "zero_state"],
            "bits_per_char_carried": measured["carried"],
            "bits_per_char_zero_state": measured["zero_state"],
            "prompt": self.alphabet.decode(self.prompt),
            "sample": self.sample(),
            "evaluations": self.evaluations,
        }

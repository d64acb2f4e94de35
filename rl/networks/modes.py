"""Whether the parts of a network are in training."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch off what a network does in training only; whatever happens, each part is put back as it was.

    Part by part, for the networks of a population may differ, and the module that holds them is made anew when asked
    for.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

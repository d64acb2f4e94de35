"""Nothing in the loop over minibatches reads a tensor back to the host."""

import numpy as np
import pytest
import torch

from experiments.benchmark.host_reads import HostReads
from rl import cores
from rl.flat_adam import flat_adam
from rl.ppo.teacher import Teacher

T, B = 8, 4
DROPOUT = {"core_options": {"num_layers": 2, "dropout": 0.3}}


@pytest.fixture
def host_reads(make_network, collect, update):
    """The ways in which one update reads from the device, once for each read."""

    def count(core, network_options=None, **options):
        network = make_network(core, **(network_options or {}))
        buffer, targets = collect(network, T)
        teacher = Teacher(network, B)
        targets.teacher_params = teacher.follow(buffer.observations(), buffer.starts)
        stored = [buffer.actions, buffer.params, buffer.values, *buffer.obs.values(), *buffer.state.values()]
        sources = [*network.parameters(), *network.buffers(), *stored, *vars(targets).values()]
        sources += teacher.network.parameters()
        optimizer = flat_adam(network, 1e-3)
        with HostReads(sources) as mode:
            update(network, (buffer, targets), optimizer=optimizer, teacher=teacher, teacher_kl=0.1, **options)
        return mode.reads

    return count


@pytest.mark.parametrize("core", [getattr(cores, name) for name in cores.__all__], ids=cores.__all__)
def test_more_minibatches_read_no_more(core, host_reads):
    """The one read at the end is that of the metrics."""
    once = host_reads(core, epochs=1, num_minibatches=1, bptt=4, value_clip=0.2)
    often = host_reads(core, epochs=2, num_minibatches=3, bptt=4, value_clip=0.2)
    assert len(once) == 1
    assert often == once


@pytest.mark.parametrize(
    ("network_options", "update_options"),
    [
        (DROPOUT | {"separate_critic": True}, {"burn_in": 4}),
        ({"normalise": True}, {"refresh_states": True, "ratio": "per_head"}),
    ],
    ids=["dropout-critic-burn-in", "normalise-refresh-per-head"],
)
@pytest.mark.parametrize("core", [cores.gru, cores.lstm], ids=["gru", "lstm"])
def test_no_option_reads_more(core, network_options, update_options, host_reads):
    assert len(host_reads(core, network_options, epochs=2, num_minibatches=3, bptt=4, **update_options)) == 1


def test_a_target_kl_is_read_once_an_epoch(host_reads):
    few, many = (host_reads(cores.gru, epochs=3, num_minibatches=n, bptt=4, target_kl=1e3) for n in (1, 4))
    assert many == few
    plain = host_reads(cores.gru, epochs=3, num_minibatches=1, bptt=4)
    more = host_reads(cores.gru, epochs=6, num_minibatches=1, bptt=4, target_kl=1e3)
    assert len(more) - len(plain) == 2 * (len(few) - len(plain)) > 0


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.detach().numpy(), "numpy"),
        (lambda x: np.asarray(x.detach()), "__array__"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: bool(x.sum() > 0), "__bool__"),
        (lambda x: float(x.sum()), "__float__"),
        (lambda x: int(x.sum()), "__int__"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.unique(), "_unique2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reads_are_noticed(read, name):
    """The measure itself: every way to read is seen, for a tensor of the device and what is computed from it only."""
    source, other = torch.arange(3.0), torch.arange(3.0)
    with HostReads([source]) as mode:
        read(other * 2.0)
        assert (mode.reads, name in mode.others) == ([], True)
        read(other * source)
        assert name in mode.reads

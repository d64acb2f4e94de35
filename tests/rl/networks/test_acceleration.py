import logging

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rl.agents import RecurrentPPO
from rl.networks import Encoder, acceleration
from rl.networks.acceleration import compile_encoder, set_precision, supports_autocast
from rl.spaces import leaf_spaces

SPACE = spaces.Dict({"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "scalars": spaces.Box(-1.0, 1.0, (2,))})


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(leaf_spaces(SPACE), 16)


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (2, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return {"image": image, "scalars": torch.rand(2, 2, generator=generator)}


@pytest.fixture
def make_agent(device):
    def make(**options):
        sizes = {"num_envs": 2, "num_steps": 8, "bptt": 4, "num_minibatches": 2, "layer_size": 16}
        return RecurrentPPO(SPACE, spaces.Discrete(3), device=device, seed=0, **sizes, **options)

    return make


@pytest.fixture
def train():
    """One rollout and its update; what the update reports."""

    def run(agent):
        space = spaces.Dict({name: part for name, part in SPACE.spaces.items()})
        space.seed(0)
        for _ in range(agent.num_steps):
            rows = [space.sample() for _ in range(2)]
            agent.act({name: np.stack([row[name] for row in rows]) for name in rows[0]})
            agent.observe(np.ones(2, np.float32), np.zeros(2, bool))
        agent.learn()
        return agent.last_metrics

    return run


# ---------------------------------------------------------------------------------------------- the three functions


@pytest.fixture
def exact_again():
    yield
    set_precision(torch.device("cuda"), "float32")


@pytest.mark.parametrize("precision", ["tf32", "float32", "bfloat16"])
def test_what_rounds_is_told_alike_to_old_and_new_flags_of_torch(precision, exact_again):
    cudnn, matmul, rounded = torch.backends.cudnn, torch.backends.cuda.matmul, precision == "tf32"
    set_precision(torch.device("cuda"), "float32" if rounded else "tf32")
    set_precision(torch.device("cuda"), precision)
    assert cudnn.allow_tf32 == matmul.allow_tf32 == rounded
    if hasattr(cudnn, "fp32_precision"):
        told = {part.fp32_precision for part in (cudnn.rnn, cudnn.conv, matmul)}
        assert told == {"tf32" if rounded else "ieee"}
    with cudnn.flags(enabled=False):  # as torch.export does
        pass


def test_the_precision_of_a_cpu_is_left_alone():
    before = torch.backends.cudnn.allow_tf32
    set_precision(torch.device("cpu"), "tf32" if not before else "float32")
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_encoder_is_compiled_forward_and_backward_on_the_example(encoder, example, monkeypatch):
    calls = []

    def compile_now(module, **options):
        def forward(*arguments):
            assert torch.is_grad_enabled()
            y = module.forward(*arguments)
            y.register_hook(lambda gradient: calls.append("backward"))
            calls.append((arguments, options))
            return y

        module._compiled_call_impl = forward

    monkeypatch.setattr(nn.Module, "compile", compile_now)
    expected = encoder(example)
    assert compile_encoder(encoder, example) is True
    assert calls == [((example,), {"dynamic": True}), "backward"]
    assert all(weights.grad is None for weights in encoder.parameters())
    assert torch.equal(encoder(example), expected)


def test_an_encoder_that_cannot_be_compiled_is_as_before(encoder, example, monkeypatch, caplog):
    def compile_later(module, **options):
        def fail(*arguments):
            raise OSError("no C++ compiler\nsee the manual")

        module._compiled_call_impl = fail

    expected = encoder(example)
    monkeypatch.setattr(nn.Module, "compile", compile_later)
    with caplog.at_level(logging.WARNING):
        assert compile_encoder(encoder, example) is False
    assert [record.getMessage() for record in caplog.records] == [
        "compile_encoder: torch.compile does not work here, so nothing is compiled (no C++ compiler)"
    ]
    assert torch.equal(encoder(example), expected)


def test_bfloat16_is_tried_on_the_example_without_gradients(encoder, example, caplog):
    seen = []
    encoder.register_forward_hook(lambda module, inputs, y: seen.append((inputs[0] is example, y.dtype, y.grad_fn)))
    with caplog.at_level(logging.WARNING):
        assert supports_autocast(encoder, example) is True
    assert seen == [(True, torch.bfloat16, None)]
    assert not caplog.records


def test_the_device_is_that_of_the_example(encoder, example, caplog):
    with caplog.at_level(logging.WARNING):
        assert not supports_autocast(encoder.to("meta"), {name: leaf.to("meta") for name, leaf in example.items()})
    assert "does not work on meta" in caplog.text


def test_an_error_without_words_is_named_by_its_kind(encoder, example, monkeypatch, caplog):
    def refuse(*arguments):
        raise RuntimeError

    monkeypatch.setattr(encoder, "forward", refuse)
    with caplog.at_level(logging.WARNING):
        assert supports_autocast(encoder, example) is False
    assert [record.getMessage() for record in caplog.records] == [
        "autocast: bfloat16 does not work on cpu, so float32 is used (RuntimeError)"
    ]


def test_what_is_no_matter_of_the_device_is_an_error(encoder, example):
    with pytest.raises(KeyError, match="scalars"):
        supports_autocast(encoder, {"image": example["image"]})


# ----------------------------------------------------------------------------------------------------- inside an agent


@pytest.fixture
def rounds(device):
    if device.type == "shadow":
        pytest.skip("it has no bfloat16 of its own")


def test_bfloat16_encoders_round_and_learn(make_agent, train, rounds):
    plain, rounded = train(make_agent()), train(make_agent(precision="bfloat16"))
    assert plain["ratio_error"] <= 1e-5
    assert rounded["value_loss"] == pytest.approx(plain["value_loss"], rel=0.1)
    assert rounded["value_loss"] != plain["value_loss"]


def test_only_encoders_are_rounded(make_agent, rounds):
    agent = make_agent(precision="bfloat16")
    features = []
    agent.network.actor.encoder.register_forward_hook(lambda *call: features.append(call[2].dtype))
    obs = {"image": torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "scalars": torch.zeros(2, 2)}
    obs = {name: leaf.to(agent.device) for name, leaf in obs.items()}
    params, values, state = agent.network.step(obs, agent.network.initial_state(2, agent.device), None)
    assert features == [torch.bfloat16]
    assert {leaf.dtype for leaf in (params, values, *state.values())} == {torch.float32}


def test_a_device_without_bfloat16_falls_back(make_agent, train, monkeypatch, caplog):
    class Refused:
        def __init__(self, *arguments):
            raise RuntimeError("no such type\nand a long story")

    monkeypatch.setattr(acceleration.torch, "autocast", Refused)
    with caplog.at_level(logging.WARNING):
        agent = make_agent(precision="bfloat16")
    assert [record.getMessage() for record in caplog.records] == [
        f"autocast: bfloat16 does not work on {agent.device}, so float32 is used (no such type)"
    ]
    assert train(agent)["ratio_error"] <= 1e-5


def test_a_machine_without_a_compiler_falls_back(make_agent, train, monkeypatch, caplog):
    def compile_later(module, **options):
        def fail(*arguments):
            raise OSError("no C++ compiler\nsee the manual")

        module._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", compile_later)
    with caplog.at_level(logging.WARNING):
        agent = make_agent(compile_encoder=True)
    (record,) = caplog.records
    assert record.getMessage().endswith("nothing is compiled (no C++ compiler)")
    assert train(agent)["ratio_error"] <= 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what torch.compile imports warns of its own
def test_compiled_encoders_compute_the_same(make_agent, train):
    plain, compiled = make_agent(), make_agent(compile_encoder=True, separate_critic=True)
    assert compiled.network.actor.encoder._compiled_call_impl is not None
    assert plain.network.state_dict().keys() <= compiled.network.state_dict().keys()
    assert train(compiled)["ratio_error"] <= 1e-4
    assert train(plain)["value_loss"] > 0

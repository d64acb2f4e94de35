"""What cannot be exported is refused in a sentence, before a file is written."""

import builtins
from functools import partial

import pytest

from envs.probes import SpaceProbe
from rl.agents import Population, RecurrentPPO
from rl.export import PolicyStep, check_format, onnx_metadata, record


def test_a_population_is_refused():
    envs = SpaceProbe(2)
    member = partial(RecurrentPPO, layer_size=4, num_minibatches=1)
    spaces_of = envs.single_observation_space, envs.single_action_space
    population = Population(*spaces_of, {"a": member, "b": member}, ["a", "b"], num_envs=2, seed=0)
    with pytest.raises(ValueError, match=r"Population has several networks: export agent.members\[NAME\]"):
        PolicyStep(population)
    for refuse in (partial(record, envs=envs, steps=1, seed=0), onnx_metadata):
        with pytest.raises(ValueError, match="Population has several networks"):
            refuse(population)
    PolicyStep(population.members["b"])


def test_another_ending(tmp_path):
    with pytest.raises(ValueError, match=r"policy.pt: it must end in .onnx, .pt2 or .ts"):
        check_format(tmp_path / "policy.pt")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra(monkeypatch, tmp_path, package):
    original = builtins.__import__

    def without(name, *rest):
        if name == package:
            raise ImportError(f"no {name}", name=name)
        if name in ("onnx", "onnxruntime", "onnxscript"):
            return None
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError) as raised:
        check_format(tmp_path / "policy.onnx")
    assert str(raised.value) == f"ONNX needs the package {package}: pip install 'recurrent-ppo[export]'"
    check_format(tmp_path / "policy.pt2")

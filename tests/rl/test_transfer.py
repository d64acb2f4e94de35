import torch

from rl.transfer import upload


class Recorder:
    """Stands for a tensor of the CPU and records what is done with it and with its pinned copy."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def pin_memory(self):
        return Recorder("pinned", self.calls)

    def to(self, device, non_blocking=False):
        self.calls.append((self.name, device, non_blocking))
        return self


def test_a_tensor_for_the_cpu_is_not_copied():
    tensor = torch.arange(3)
    assert upload(tensor, torch.device("cpu")) is tensor


def test_the_way_to_a_gpu_is_pinned_and_does_not_wait():
    gpu, cpu = torch.device("cuda:1"), torch.device("cpu")
    for device, expected in (gpu, ("pinned", gpu, True)), (cpu, ("plain", cpu, True)):
        calls = []
        upload(Recorder("plain", calls), device)
        assert calls == [expected]


def test_values_and_dtype_arrive(device):
    for tensor in torch.arange(5), torch.tensor([True, False]), torch.zeros(0, 3):
        arrived = upload(tensor, device)
        assert arrived.device.type == device.type
        assert arrived.dtype == tensor.dtype
        assert torch.equal(arrived.cpu(), tensor)

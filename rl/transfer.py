"""From the host, where environments and plans are made, to the device of the network."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``: itself if that is the CPU, through pinned memory if it is a GPU.

    From pinned memory a copy runs beside the host, which need not wait for what the GPU still has to do.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

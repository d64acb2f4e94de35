"""From the host, where environments and plans are made, to the device of the network."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to ``device``; return the tensor itself if that is the CPU.

    The way to a GPU is through pinned memory, from which a copy runs beside the host: the host need not wait for what
    the GPU still has to do.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

"""Adam over all weights of a network as one vector: one norm, one clip and one step instead of one per parameter."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Adam, Optimizer


def flat_adam(network: nn.Module, learning_rate: float) -> Adam:
    """Adam (Kingma and Ba, 2015) whose only parameter holds all weights of ``network`` end to end.

    The parameters of ``network`` become views of it, so the network is to be on its device already and to stay there.
    Every step is elementwise, so it computes what Adam over the separate parameters would.
    """
    parameters = list(network.parameters())
    vector = nn.Parameter(parameters_to_vector(parameters).detach())
    vector_to_parameters(vector.data, parameters)
    return Adam([vector], lr=learning_rate, eps=1e-5, fused=True)


def set_clipped_gradient(optimizer: Optimizer, gradients: tuple[Tensor, ...], max_norm: float) -> Tensor:
    """Hands ``gradients``, one for each parameter of the network, to the optimiser of :func:`flat_adam`.

    Returns:
        Their joint norm before it was cut to ``max_norm``, as a 0-d tensor.
    """
    gradient = torch.cat([part.reshape(-1) for part in gradients])
    norm = torch.linalg.vector_norm(gradient)
    (vector,) = optimizer.param_groups[0]["params"]
    vector.grad = gradient
    optimizer.grad_scale = (norm / max_norm).clamp_(min=1.0)  # the fused step divides by it: one pass less over memory
    return norm

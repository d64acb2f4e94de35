"""What all ways to unroll a gated recurrent unit do last: from the gradients of its gates to those of its weights."""

from torch import Tensor

Gradients = tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]


def weight_gradients(x: Tensor, before: Tensor, d_gates: Tensor, weight_ih: Tensor, needs_dx: bool) -> Gradients:
    """Sum the gradients of all steps, each weight by one product.

    Args:
        x: inputs, ``[T, B, D]``.
        before: the states that the steps saw, ``[T, B, H]``, 0 at starts.
        d_gates: the gradients of U_n h + c_n, r, z and W_n x + b_n side by side, ``[T, B, 4H]``; what follows is left
            out. In this order both the recurrent part (the first three) and the input part (the last three) are slices.
        weight_ih: of the inputs, ``[3H, D]``.
        needs_dx: whether the gradient of the inputs is asked for.

    Returns:
        The gradients of x (None if it is not asked for), ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``.
    """
    (T, B, D), H = x.shape, before.shape[-1]
    flat = d_gates.view(T * B, -1)
    d_state, d_input = flat[:, : 3 * H], flat[:, H : 4 * H]
    dx = (d_input @ weight_ih).view(T, B, D) if needs_dx else None
    dw_hh = (d_state.t() @ before.reshape(T * B, H)).roll(-H, 0)
    sums = flat[:, : 4 * H].sum(0)
    return dx, d_input.t() @ x.reshape(T * B, D), dw_hh, sums[H:], sums[: 3 * H].roll(-H)

"""Checks of what stands in front of the memory: the scales of observations, and features that say nothing."""

import torch

from rl.memory_check.subject import Trace
from rl.memory_check.verdicts import Verdict

LARGE = 100.0
"""Numbers of this size are worth a look where nothing normalises them."""

MANY = 0.5


def check_scales(trace: Trace) -> Verdict:
    """Report the range of each leaf of the observations.

    Args:
        trace: of a rollout.
    """
    name, words, numbers = "observations_are_in_scale", [], {}
    finite, large = True, []
    for key, leaf in trace.obs.items():
        values = leaf.double().reshape(leaf.shape[0] * leaf.shape[1], -1)
        low, high = float(values.min()), float(values.max())
        varying = int((values.std(0, unbiased=False) > 0).sum())
        finite &= bool(torch.isfinite(values).all())
        if leaf.is_floating_point() and max(abs(low), abs(high)) > LARGE:
            large.append(key)
        words.append(f"{key} {low:.3g} to {high:.3g}, {varying} of {values.shape[1]} numbers vary")
        numbers[key] = {"lowest": low, "highest": high, "varying": varying, "numbers": values.shape[1]}
    finding = "; ".join(words)
    if not finite:
        return Verdict(name, False, finding, "the environment must send finite numbers alone", numbers)
    if large:
        advice = f"{', '.join(large)}: declare the bounds in the space, or set agent.normalise_observations=true"
        return Verdict(name, None, finding, advice, numbers)
    return Verdict(name, True, finding, "", numbers)


def check_features(trace: Trace) -> Verdict:
    """Count the inputs of the memory that never vary, and those that are saturated.

    Args:
        trace: of a rollout.
    """
    name = "features_are_alive"
    floats = [leaf.flatten(0, 1).flatten(1).double() for leaf in trace.inputs.values() if leaf.is_floating_point()]
    if not floats:
        return Verdict(name, None, "the memory reads no numbers that are floats", "", {})
    features = torch.cat(floats, dim=1)
    dead = float((features.std(0, unbiased=False) < 1e-6).double().mean())
    bounded = bool((features.abs() <= 1.0).all())
    codes = ((features == 0.0) | (features == 1.0)).all(0)  # [D]; a saturated tanh is at -1 or 1
    saturated = float(((features.abs() > 0.99) & ~codes).double().mean()) if bounded else 0.0
    size = float(features.square().mean().sqrt())
    numbers = {"features": features.shape[1], "dead": dead, "saturated": saturated, "root_mean_square": size}
    finding = (
        f"of {features.shape[1]} features {dead:.0%} never vary and {saturated:.0%} of their values are saturated, "
    )
    finding += f"their size is {size:.2g}"
    varies = any(bool((leaf != leaf[0, 0]).any()) for leaf in trace.obs.values())
    if not varies:
        return Verdict(name, None, f"observations never vary in a rollout, so {finding}", "", numbers)
    if dead == 1.0:
        return Verdict(name, False, finding, "the encoder destroys what is observed: look at its scales", numbers)
    if dead > MANY:
        advice = "leave out what never varies, or look at the scales and agent.layer_size"
        return Verdict(name, None, finding, advice, numbers)
    if saturated > MANY:
        advice = "normalise observations (agent.normalise_observations=true) or declare their bounds"
        return Verdict(name, None, finding, advice, numbers)
    return Verdict(name, True, finding, "", numbers)

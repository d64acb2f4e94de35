"""Schedules written a second time, for the slow references of several tests."""

import math


def slow_schedule(schedule, first, final, progress, warmup=0.0):
    """The value of a schedule, from its words."""
    if progress < warmup:
        return first * (0.1 + 0.9 * progress / warmup)
    if schedule in ("constant", "adaptive"):
        return first
    done = min(1.0, (progress - warmup) / (1.0 - warmup))
    share = done if schedule == "linear" else (1.0 - math.cos(math.pi * done)) / 2.0
    return (1.0 - share) * first + share * (final or 0.0)

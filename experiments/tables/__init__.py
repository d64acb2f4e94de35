"""Train many runs side by side, and make the tables and plots that come of them.

Others may use ``run`` of ``learning_table``, ``compare_cores``, ``memory_suite`` and ``memory_ladder``, which are
commands; ``curves``, which draws the runs of ``experiments.plot`` too; and ``latency``, which times single actions for
``experiments.realtime`` too.
"""

"""Many runs at a time: the search for settings, the launchers of Hydra that run jobs side by side, and their state.

Others may use ``run`` of ``search`` and of ``status``, which are commands; ``jobs`` is for ``experiments.launch``.
"""

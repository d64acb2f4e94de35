"""Measure speed with ``python -m experiments.benchmark``: of the parts, of whole training, and beside peers.

Others may use ``host_reads.HostReads``, which counts what an update reads from its device.
"""

"""``python -m experiments.benchmark``: speed of the parts, of whole training, and beside peers, in one sitting."""

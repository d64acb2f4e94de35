"""What ``experiments.watch`` is made of: environments that draw, curves, pages and videos."""

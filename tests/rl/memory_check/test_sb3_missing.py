"""Without sb3-contrib the error names the extra."""

import sys

import pytest

import rl


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(ImportError, match=r"need the package sb3_contrib: pip install 'recurrent-ppo\[bench\]'"):
        rl.check_memory_of_sb3(None)

"""The peak memory of a run."""


def test_peak_memory(cwd, child_environment, process):
    """That of the process alone: whoever starts it, this test say, may hold more. The largest of several stays."""
    for kept, least in ((None, 5), (10**9, 1000)):
        if kept:
            (cwd / "peak").write_text(str(kept))
        assert process("tables.peak_memory", "peak", "this").wait() == 0
        assert least <= int((cwd / "peak").read_text()) / 1e6 < least + 60
    assert process("tables.peak_memory", "other", "no_such_module").wait() == 1
    assert not (cwd / "other").exists()

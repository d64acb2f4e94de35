from functools import partial

from rl.encoders import auto, mlp
from rl.encoders.auto import is_auto


def test_what_a_configuration_or_a_checkpoint_wraps_is_known():
    assert is_auto(auto) and is_auto(partial(auto))
    assert not is_auto(mlp) and not is_auto(partial(mlp, widths=[4])) and not is_auto(lambda shapes: None)

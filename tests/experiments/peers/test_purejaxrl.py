"""PureJaxRL as a worker: what is changed in its text, and what is refused."""

import pytest

from experiments.peers import purejaxrl


def test_purejaxrl_refuses_another_version():
    with pytest.raises(ValueError, match=r"ppo_rnn.py is another version .* matches 0 times, not 1"):
        purejaxrl.edit("import jax\n", purejaxrl.EDITS, "ppo_rnn.py")


def test_purejaxrl_edits():
    wanted = [edit for edit in purejaxrl.EDITS if "GRUCell" in edit[0] or "NUM_ENVS" in edit[0]]
    line = 'ScannedRNN.initialize_carry(config["NUM_ENVS"], 128)\n'
    for cell in ("nn.GRUCell()", "nn.GRUCell(features=ins.shape[1])"):
        text = purejaxrl.edit(f"new, y = {cell}(rnn_state, ins)\n{line}{line}", wanted, "ppo_rnn.py")
        assert text.splitlines() == ["new, y = CELL(features=HIDDEN_SIZE)(rnn_state, ins)"] + 2 * [
            'ScannedRNN.initialize_carry(config["NUM_ENVS"], HIDDEN_SIZE)'
        ]


def test_purejaxrl_has_no_w2(capsys):
    with pytest.raises(SystemExit):
        purejaxrl.main(["--checkout", ".", "--workload", "w2"])
    assert "w2 does not run in PureJaxRL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", ["", "from brax.envs.wrappers.training import EpisodeWrapper, AutoResetWrapper\nimport navix as nx\n"]
)
def test_what_only_wrappers_for_other_environments_need_is_not_imported(more):
    """The second form is that of revision 31756b1."""
    text = f"import jax\nfrom brax import envs\n{more}\n\nclass GymnaxWrapper(object):\n"
    edited = purejaxrl.edit(text, purejaxrl.WRAPPER_EDITS, "wrappers.py")
    assert edited == "import jax\n\n\nclass GymnaxWrapper(object):\n"

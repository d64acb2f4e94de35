"""Recurrent PPO with an LSTM: its memory and its one head."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentPPO, RecurrentPPOLSTM

OBS = spaces.Box(-1, 1, (10,))


def test_it_remembers_with_an_lstm_unless_told_otherwise():
    assert set(RecurrentPPOLSTM(OBS, spaces.Discrete(7)).actor.state) == {"h", "c"}
    assert set(RecurrentPPOLSTM(10, 7, hidden_size=8).actor.state) == {"h", "c"}
    assert set(RecurrentPPOLSTM(10, 7, hidden_size=8, core=cores.mlp).actor.state) == set()
    assert set(RecurrentPPOLSTM(OBS, spaces.Discrete(7), core=partial(cores.rnn, hidden_size=8)).actor.state) == {"h"}


def test_it_is_recurrent_ppo_with_another_memory(make_agent, play_turns, same_weights):
    space = OBS, spaces.Discrete(4)
    one, other = make_agent(space, RecurrentPPOLSTM, "lstm"), make_agent(space, RecurrentPPO, "lstm")
    for agent in (one, other):
        play_turns(agent, 8)
        agent.learn()
    assert isinstance(one, RecurrentPPO)
    assert same_weights(one, other)


def test_positional_arguments_are_those_of_recurrent_ppo(same_weights):
    """(observation_space, action_space, layer_size, epsilon, epsilon_min, device, seed)."""
    agents = [
        kind(OBS, spaces.Discrete(4), 8, 0.5, 0.25, "cpu", 3, core=cores.lstm)
        for kind in (RecurrentPPOLSTM, RecurrentPPO)
    ]
    for agent in agents:
        assert (agent.layer_size, agent.epsilon, agent.epsilon_min, agent.device.type) == (8, 0.5, 0.25, "cpu")
    assert same_weights(*agents)


@pytest.mark.parametrize("dims", [(5, 3), (5, 3, 2), (4,)], ids=str)
def test_factored_codes_are_mixed_radix_and_each_is_used_once(force_branches, dims):
    """The first branch weighs most: (a, b, c) of sizes (5, 3, 2) is a * 6 + b * 2 + c."""
    agent = RecurrentPPOLSTM(10, int(np.prod(dims)), use_factored_actions=True, action_dims=dims, hidden_size=8)
    agent.training, codes = False, []
    for branches in product(*(range(n) for n in dims)):
        force_branches(agent, *branches)
        codes.append(agent.take_action(np.zeros(10)))
        assert agent.get_dual_action() == branches
    assert codes == list(range(int(np.prod(dims))))


def test_one_head_over_all_codes(force_branches):
    agent = RecurrentPPOLSTM(10, 7, hidden_size=8)
    assert agent.action_space == spaces.Discrete(7)
    agent.training = False
    for code in range(7):
        force_branches(agent, code)
        assert agent.take_action(np.zeros(10)) == code

"""What a user names in ``agent=``."""

from rl.agents.dual_head_recurrent_ppo import DualHeadRecurrentPPO
from rl.agents.loading import load_agent
from rl.agents.player import Player
from rl.agents.population import Population
from rl.agents.recurrent_iqn import RecurrentIQN
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.agents.recurrent_ppo_lstm import RecurrentPPOLSTM

__all__ = [
    "DualHeadRecurrentPPO",
    "Player",
    "Population",
    "RecurrentIQN",
    "RecurrentPPO",
    "RecurrentPPOLSTM",
    "load_agent",
]

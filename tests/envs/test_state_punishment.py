"""The rules of a turn: rewards, punishments, harm, votes, spawning."""

import numpy as np
import pytest

from envs.state_punishment import StatePunishment
from envs.state_punishment.rules import FIRST_KIND, SAND, SCHEDULES, level_index

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NONE, INCREASE, DECREASE = range(3)
A, B, C, D, E = range(5)

# As printed in the reference: hundredths for the tables, three digits for the rule.
HEAD_A = [0.30, 0.40, 0.55, 0.70, 0.85, 0.95, 1, 1, 1, 1]
SEED_A = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95]
TABLE_B_TO_E = [
    [0.00, 0.00, 0.00, 0.00],
    [0.05, 0.00, 0.00, 0.00],
    [0.10, 0.00, 0.00, 0.00],
    [0.10, 0.05, 0.00, 0.00],
    [0.10, 0.10, 0.00, 0.00],
    [0.10, 0.10, 0.05, 0.00],
    [0.10, 0.10, 0.10, 0.00],
    [0.15, 0.10, 0.10, 0.05],
    [0.15, 0.15, 0.10, 0.10],
    [0.20, 0.15, 0.15, 0.10],
]
GENERATED = [
    [0.021, 0.035, 0.066, 0.137, 0.349],
    [0.026, 0.042, 0.079, 0.168, 0.445],
    [0.032, 0.049, 0.092, 0.202, 0.558],
    [0.037, 0.056, 0.106, 0.239, 0.688],
    [0.042, 0.063, 0.120, 0.279, 0.838],
    [0.047, 0.071, 0.135, 0.322, 1],
    [0.053, 0.078, 0.150, 0.368, 1],
    [0.058, 0.085, 0.165, 0.418, 1],
    [0.063, 0.092, 0.181, 0.472, 1],
    [0.068, 0.099, 0.197, 0.530, 1],
]


def bare(num_worlds=1, num_agents=1, **changes):
    """Grids with nothing in them, agents that may stay, punishments without chance; begun, agents in cell (4, 4)."""
    settings = {"initial_resources": 0, "punishment_mode": "deterministic", "actions": "factored", "view_radius": 1}
    env = StatePunishment(num_worlds * num_agents, num_agents, **settings | changes)
    env.reset(seed=0)
    if not changes.get("menu"):
        env.position[:] = cell(env, 4, 4)
    return env


def cell(env, y, x):
    return (y + env.board.radius) * env.board.side + x + env.board.radius


def put(env, row, y, x, kind):
    env.cells[row, cell(env, y, x)] = FIRST_KIND + kind


def step(env, moves, votes=NONE):
    """Rewards of a turn."""
    pairs = np.broadcast_to(np.stack(np.broadcast_arrays(moves, votes), axis=-1), (env.num_envs, 2))
    return env.step(pairs)[1]


def test_schedules_to_the_digits_that_are_printed():
    np.testing.assert_allclose(SCHEDULES["head"], np.column_stack([HEAD_A, TABLE_B_TO_E]), atol=1e-12)
    np.testing.assert_allclose(SCHEDULES["seed"], np.column_stack([SEED_A, TABLE_B_TO_E]), atol=1e-12)
    np.testing.assert_array_equal(np.round(SCHEDULES["generated"], 3), GENERATED)


def test_level_index_rounds_halves_to_even():
    halves = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 8.5]) / 9
    assert level_index(halves).tolist() == [0, 2, 2, 4, 4, 6, 8]
    assert level_index(np.arange(11) / 10).tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("schedule", ["head", "seed", "generated"])
@pytest.mark.parametrize("kind", [A, B, E])
def test_a_resource_pays_its_value_less_its_punishment(schedule, kind):
    for level in (0.0, 0.4, 1.0):
        env = bare(schedule=schedule, initial_level=level, values=(20, 10, 11, 12, 13))
        put(env, 0, 3, 4, kind)
        q = SCHEDULES[schedule][level_index(level), kind]
        assert step(env, UP) == pytest.approx((20, 10, 11, 12, 13)[kind] - 25 * q)
        assert env.position == cell(env, 3, 4) and env.cells[0, cell(env, 3, 4)] == SAND
        assert step(env, DOWN) == 0 and step(env, UP) == 0  # it is gone


def test_walls_turn_back_and_cost_one():
    env = bare()
    env.position[:] = cell(env, 1, 1)
    for move, reward, then in [(UP, -1, (1, 1)), (LEFT, -1, (1, 1)), (RIGHT, 0, (1, 2)), (DOWN, 0, (2, 2))]:
        assert step(env, move) == reward and env.position == cell(env, *then)
    assert step(env, STAY) == 0 and env.position == cell(env, 2, 2)


def test_a_punishment_is_a_matter_of_chance_or_of_its_expectation():
    env = bare(num_worlds=4000, punishment_mode="probabilistic", initial_level=1 / 9)
    env.cells[:, cell(env, 3, 4)] = FIRST_KIND
    rewards = step(env, UP)
    assert set(rewards) == {20, -5}
    assert abs((rewards == -5).mean() - 0.4) < 4 * np.sqrt(0.24 / 4000)


def test_important_rule_never_punishes_a():
    env = bare(important_rule=True, initial_level=1.0)
    put(env, 0, 3, 4, A)
    put(env, 0, 2, 4, B)
    assert step(env, UP) == 20 and step(env, UP) == 10 - 25 * 0.2


def test_harm_is_observed_before_it_is_paid_by_everybody_else():
    env = bare(num_agents=3, punishment_magnitude=0)
    put(env, 0, 3, 4, A)
    put(env, 1, 4, 5, A)
    put(env, 2, 4, 3, B)
    assert step(env, [UP, RIGHT, LEFT]).tolist() == [20, 20, 10]
    assert env._observe()["scalars"][:, 1].tolist() == [5, 5, 10]
    put(env, 0, 2, 4, A)
    assert step(env, [UP, STAY, STAY]).tolist() == [20 - 5, -5, -10]  # what the first does now is paid later
    assert env._observe()["scalars"][:, 1].tolist() == [0, 5, 5]
    assert step(env, STAY).tolist() == [0, -5, -5] and not env.account.any()


def test_worlds_do_not_harm_each_other():
    env = bare(num_worlds=2, num_agents=2, punishment_magnitude=0)
    put(env, 0, 3, 4, A)
    step(env, [UP, STAY, STAY, STAY])
    assert env.account.tolist() == [0, 5, 0, 0]


def test_the_observed_account_is_exactly_what_is_paid():
    env = StatePunishment(40, 10, values=(0,) * 5, harms=(5, 1, 2.5, 0, 0), punishment_magnitude=0, respawn_prob=0.1)
    observations, _ = env.reset(seed=0)
    env.action_space.seed(0)
    paid = 0
    for _ in range(150):  # over the end of an episode, too
        before = observations["scalars"][:, 1]
        observations, rewards, *_ = env.step(env.action_space.sample())
        assert set(rewards + before) <= {0, -1}
        paid += before.sum()
    assert paid > 100


def test_votes_count_at_once_for_those_who_act_later():
    env = bare(num_agents=3, random_order=False, initial_level=0.4)
    env.cells[:, cell(env, 3, 4)] = FIRST_KIND
    rewards = step(env, UP, [INCREASE, INCREASE, DECREASE])
    # at 0.4 and 0.5 the index is 4, at 0.6 it is 5; nobody's own vote counts for itself
    assert rewards == pytest.approx([20 - 25 * 0.85, 20 - 25 * 0.85, 20 - 25 * 0.95])
    assert env.level == [0.5]
    assert env._observe()["scalars"][:, 0] == pytest.approx(0.5)


def test_each_vote_is_clipped_as_it_comes():
    env = bare(num_agents=3, random_order=False)
    step(env, STAY, [DECREASE, INCREASE, NONE])
    assert env.level == [0.1]
    for _ in range(5):
        step(env, STAY, INCREASE)
    assert env.level == [1.0]
    step(env, STAY, [INCREASE, DECREASE, DECREASE])
    assert env.level == [0.8]
    env = bare(initial_level=1.0)
    for _ in range(5):
        step(env, STAY, DECREASE)
    assert env.level == [0.5]  # exactly, so index 4 from above as from below
    env = bare(num_agents=1, vote_step=0.25)
    step(env, STAY, INCREASE)
    assert env.level == [0.25]


def test_the_order_of_a_turn_is_drawn_anew_for_each_world_and_turn():
    for random_order, share in ((True, 0.5), (False, 1.0)):
        env = bare(num_worlds=2000, num_agents=2, random_order=random_order)
        for _ in range(2):
            env.level[:] = 0
            env.cells[1::2, cell(env, 3, 4)] = FIRST_KIND
            env.position[1::2] = cell(env, 4, 4)
            rewards = step(env, np.tile([STAY, UP], 2000), np.tile([INCREASE, NONE], 2000))[1::2]
            later = np.isclose(rewards, 20 - 25 * 0.4).mean()  # found the level at 0.1
            assert abs(later - share) <= 4 * np.sqrt(share * (1 - share) / 2000)


def test_without_votes_the_level_stays():
    env = bare(num_agents=2, votes=False, initial_level=0.3)
    step(env, STAY, INCREASE)
    assert env.level == [0.3]


def test_a_delayed_punishment_is_paid_with_the_next_action_and_never_across_episodes():
    env = bare(delayed_punishment=True, max_turns=3, punishment_visible=True)
    put(env, 0, 3, 4, A)
    put(env, 0, 2, 4, A)
    assert step(env, UP) == 20 and env._observe()["scalars"][0, 2] == 0
    assert step(env, UP) == 20 - 7.5 and env._observe()["scalars"][0, 2] == 1
    put(env, 0, 1, 4, A)
    assert step(env, UP) == 20 - 7.5  # the last turn; its own punishment is never paid
    assert step(env, STAY) == 0 and not env.pending.any()


def test_phased_voting():
    env = bare(num_agents=2, phased_voting=3, max_turns=7, random_order=False)
    env.cells[:, cell(env, 3, 4)] = FIRST_KIND + E
    flags, levels, positions = [], [], []
    for _ in range(7):
        flags.append(env._observe()["scalars"][:, 2].tolist())
        step(env, UP, INCREASE)
        levels.append(env.level[0])
        positions.append(env.position[0])
    assert flags == [[i in (0, 3, 6)] * 2 for i in range(7)]
    # the level of the new episode in the last place, where the old one would have had 0.6
    assert levels == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.0])
    assert positions[:6] == [cell(env, y, 4) for y in (4, 3, 2, 2, 1, 1)]
    assert env._observe()["scalars"][0, 2] == 1  # the next episode begins with a vote


def test_a_random_level_is_uniform_and_drawn_in_every_episode():
    env = bare(num_worlds=4000, initial_level="random", max_turns=1)
    first = env.level.copy()
    step(env, STAY)
    for levels in (first, env.level):
        counts = np.bincount(level_index(levels), minlength=10)
        assert len(counts) == 10 and (np.abs(counts - 400) < 5 * np.sqrt(400)).all()
    assert abs((first == env.level).mean() - 0.1) < 0.03


@pytest.mark.parametrize("initial_level", [0.2, "random"])
def test_a_level_that_is_not_reset_lasts_until_a_seed(initial_level):
    env = bare(num_worlds=50, reset_level=False, initial_level=initial_level, max_turns=2)
    start = env.level.copy()
    for _ in range(3):
        step(env, STAY, DECREASE)
    expected = np.maximum(start - 0.3, 0)
    assert env.level == pytest.approx(expected, abs=1e-9)
    env.reset()
    assert env.level == pytest.approx(expected, abs=1e-9)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.level, start)
    reset = bare(initial_level=0.2, max_turns=2)
    for _ in range(2):
        step(reset, STAY, DECREASE)
    assert reset.level == [0.2]


def test_agent_and_first_resources_lie_on_uniform_distinct_cells():
    env = StatePunishment(
        3000, 3, size=5, view_radius=1, initial_resources=4, spawn_probabilities=(0.5, 0.2, 0.1, 0.1, 0.1)
    )
    env.reset(seed=0)
    assert (env.board.stock(env.cells) == 4).all()
    assert (env.cells[np.arange(3000), env.position] == SAND).all()
    places = np.bincount(env.position, minlength=env.cells.shape[1])[env.board.free]
    assert places.sum() == 3000 and (np.abs(places - 3000 / 9) < 5 * np.sqrt(3000 / 9)).all()
    filled = (env.cells[:, env.board.free] >= FIRST_KIND).sum(axis=0)
    assert (np.abs(filled - 3000 * 4 / 9) < 5 * np.sqrt(3000)).all()
    kinds = np.bincount(env.cells[:, env.board.free].ravel())[FIRST_KIND:]
    assert kinds / 12_000 == pytest.approx([0.5, 0.2, 0.1, 0.1, 0.1], abs=0.02)


def test_empty_cells_spawn_before_every_turn():
    env = StatePunishment(3000, 3, view_radius=1, initial_resources=0, respawn_prob=0.05, max_turns=2)
    env.reset(seed=0)
    expected = 63 * 0.05  # before the first turn, and of cells without the agent only
    for _ in range(2):
        stock = env.board.stock(env.cells)
        assert abs(stock.mean() - expected) < 4 * stock.std() / np.sqrt(3000)
        env.position[:] = cell(env, 1, 1)
        env.cells[:, cell(env, 1, 1)] = SAND
        expected = env.board.stock(env.cells).mean()
        expected += (63 - expected) * 0.05
        env.step(np.tile([LEFT, NONE], (3000, 1)))


def test_resources_never_exceed_the_most_and_all_cells_have_the_same_chance():
    env = StatePunishment(2000, 1, initial_resources=0, respawn_prob=0.5, max_resources=6, size=6, view_radius=1)
    env.reset(seed=0)
    stock = env.board.stock(env.cells)
    assert stock.max() == 6 and (stock == 6).mean() > 0.5
    filled = (env.cells[:, env.board.free] >= FIRST_KIND).sum(axis=0)
    assert (np.abs(filled - filled.mean()) < 5 * np.sqrt(filled.mean())).all()
    env.action_space.seed(0)
    for _ in range(20):
        env.step(env.action_space.sample())
        assert env.board.stock(env.cells).max() <= 6


def test_the_menu_has_the_same_rewards_and_new_arms_each_turn():
    env = bare(num_worlds=2, num_agents=2, menu=True, menu_size=2, random_order=False, initial_level=0.4)
    env.cells[:] = FIRST_KIND + np.array([[A, B], [C, A], [B, B], [D, E]])
    # takes A and votes; takes its second arm, A, at 0.5; leaves; takes E
    rewards = step(env, [0, 1, 2, 1], [INCREASE, NONE, NONE, NONE])
    assert rewards == pytest.approx([20 - 25 * 0.85, 20 - 25 * 0.85, 0, 10])
    assert env.account.tolist() == [5, 5, 0, 0] and env.level.tolist() == [0.5, 0.4]
    kinds = np.array([env.cells.copy() for _ in range(300) if step(env, 2) is not None])
    shares = np.bincount(kinds.ravel() - FIRST_KIND) / kinds.size
    assert shares == pytest.approx([0.2] * 5, abs=0.04)
    assert (kinds[1:] != kinds[:-1]).mean() == pytest.approx(0.8, abs=0.04)

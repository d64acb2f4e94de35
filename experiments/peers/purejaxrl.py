"""Train PureJaxRL's recurrent PPO, from your own checkout of luchris429/purejaxrl, in an environment of its own.

    git clone https://github.com/luchris429/purejaxrl CHECKOUT
    python3 -m venv JAX && JAX/bin/pip install jax flax optax distrax gymnax
    JAX/bin/python -m experiments.peers.purejaxrl --checkout CHECKOUT --workload w1 --core lstm

Run it from the root of this repository; of this project only the standard-library modules of this package are imported.
Nothing of PureJaxRL is kept here: its files are read, the replacements of ``EDITS`` are applied to the text, and what
comes out is run. A version of the files that a replacement does not fit is refused.

Matched: sizes of rollout, network and update; Adam, clipping, coefficients; tanh layers of one width in place of its
relu layers; in place of the GRU an LSTM if asked (flax's OptimizedLSTMCell, the
faster of its two); the task, written for gymnax: CartPole-v1 with the velocities masked and rewards x 0.02 (it then
learns, which changes nothing in its speed), or repeat-previous. All is compiled before the first measurement.

Not matched: it trains on whole rollouts only (128 steps of two environments make a minibatch of 256), clips the value
loss, and treats a truncation as a termination. Nothing of it runs outside XLA: environments must be written in JAX, so
there is no w2.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.peers import workloads
from experiments.peers.serve import Worker, repeat, serve

# Pattern, replacement, how often it must match. ENCODER_SIZE, HIDDEN_SIZE, CELL, TASK and the wrappers are given.
EDITS: tuple[tuple[str, str, int], ...] = (
    (r"from wrappers import FlattenObservationWrapper, LogWrapper\n", "", 1),
    (r'gymnax\.make\(config\["ENV_NAME"\]\)', "TASK", 1),
    # The network: layers of 64 with tanh.
    (r"nn\.Dense\(\s*128, kernel_init=orthogonal\(np\.sqrt\(2\)\)", "nn.Dense(ENCODER_SIZE", 1),
    (r"nn\.relu\(embedding\)", "nn.tanh(embedding)", 1),
    (r"actor_mean = nn\.Dense\(\s*128,", "actor_mean = nn.Dense(ENCODER_SIZE,", 1),
    (r"nn\.relu\(actor_mean\)", "nn.tanh(actor_mean)", 1),
    (r"critic = nn\.Dense\(\s*128,", "critic = nn.Dense(ENCODER_SIZE,", 1),
    (r"nn\.relu\(critic\)", "nn.tanh(critic)", 1),
    # The cell, whose state may be a tuple and whose size is not the encoder's.
    (r"nn\.GRUCell\([^()]*\)\(rnn_state, ins\)", "CELL(features=HIDDEN_SIZE)(rnn_state, ins)", 1),
    (
        r"jnp\.where\(\s*(resets\[:, np\.newaxis\]),\s*self\.initialize_carry\(ins\.shape\[0\], ins\.shape\[1\]\),"
        r"\s*rnn_state,?\s*\)",
        r"jax.tree_util.tree_map(lambda fresh, kept: jnp.where(\1, fresh, kept),"
        r" self.initialize_carry(ins.shape[0], HIDDEN_SIZE), rnn_state)",
        1,
    ),
    (
        r"(def initialize_carry\(batch_size, hidden_size\):\n).*?\n\n\n",
        r"\1        shape = batch_size, hidden_size"
        r"\n        return CELL(features=hidden_size).initialize_carry(jax.random.PRNGKey(0), shape)\n\n\n",
        1,
    ),
    (r'(ScannedRNN\.initialize_carry\(config\["NUM_ENVS"\]), 128\)', r"\1, HIDDEN_SIZE)", 2),
    (r"initial_hstate\[None, :\]", "jax.tree_util.tree_map(lambda leaf: leaf[None], initial_hstate)", 1),
    (r"init_hstate\[0\]", "jax.tree_util.tree_map(lambda leaf: leaf[0], init_hstate)", 1),
    # The loop over updates is left to the caller, so that training can pause and go on.
    (
        r'runner_state, metric = jax\.lax\.scan\(\s*_update_step, runner_state, None, config\["NUM_UPDATES"\]\s*\)'
        r'\s*return \{"runner_state": runner_state, "metric": metric\}',
        "return runner_state, _update_step",
        1,
    ),
)
# Only its wrappers for Brax and Navix need these, which are large installs.
WRAPPER_EDITS = ((r"from brax import envs\n(?:from brax\.[^\n]*\n)?(?:import navix[^\n]*\n)?", "", 1),)


def edit(text: str, edits: Sequence[tuple[str, str, int]], file: str) -> str:
    """Return a text with every replacement made.

    Args:
        text: of the file.
        edits: pattern, replacement, how often it must match.
        file: its name, for messages.

    Raises:
        ValueError: one of them does not match as often as it must.
    """
    for pattern, replacement, expected in edits:
        text, found = re.subn(pattern, replacement, text, flags=re.DOTALL)
        if found != expected:
            raise ValueError(
                f"{file} is another version than this worker knows: {pattern!r} matches {found} times, not {expected}"
            )
    return text


def load_edited(checkout: Path, file: str, edits: Sequence[tuple[str, str, int]], **given: Any) -> ModuleType:
    """Run the edited file of a checkout as a module.

    Args:
        checkout: of PureJaxRL.
        file: its name.
        edits: see ``edit``.
        **given: names that the module knows as well.

    Raises:
        FileNotFoundError: the checkout has no such file.
        ValueError: see ``edit``.
    """
    path = checkout / "purejaxrl" / file
    module = ModuleType(f"purejaxrl_{path.stem}")
    vars(module).update(given, __file__=str(path))
    sys.modules[module.__name__] = module  # flax looks up the modules of its classes
    exec(compile(edit(path.read_text(), edits, file), str(path), "exec"), vars(module))
    return module


def limit_threads(threads: int) -> None:
    """Limit the threads of XLA, before jax is imported. With one it gets no pool, and the process one core."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        flags += " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags.strip()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def build(arguments: Namespace) -> Worker:
    """Return the compiled worker."""
    limit_threads(arguments.threads)
    import jax
    from flax import linen

    work = workloads.WORKLOADS[arguments.workload]
    wrappers = load_edited(arguments.checkout, "wrappers.py", WRAPPER_EDITS)
    program = load_edited(
        arguments.checkout,
        "ppo_rnn.py",
        EDITS,
        ENCODER_SIZE=work.layer_size,
        HIDDEN_SIZE=work.hidden_size,
        CELL={"gru": linen.GRUCell, "lstm": linen.OptimizedLSTMCell}[arguments.core],
        TASK=make_task(work.name),
        FlattenObservationWrapper=wrappers.FlattenObservationWrapper,
        LogWrapper=wrappers.LogWrapper,
    )
    config = {
        "LR": workloads.LEARNING_RATE,
        "NUM_ENVS": work.num_envs,
        "NUM_STEPS": work.num_steps,
        "TOTAL_TIMESTEPS": work.num_envs * work.num_steps,  # read for the annealing, which is off
        "UPDATE_EPOCHS": work.epochs,
        "NUM_MINIBATCHES": work.num_minibatches,
        "GAMMA": workloads.GAMMA,
        "GAE_LAMBDA": workloads.GAE_LAMBDA,
        "CLIP_EPS": workloads.CLIP,
        "ENT_COEF": workloads.ENTROPY_COEF,
        "VF_COEF": workloads.VALUE_COEF,
        "MAX_GRAD_NORM": workloads.MAX_GRAD_NORM,
        "ANNEAL_LR": False,
    }
    state, update = program.make_train(config)(jax.random.PRNGKey(0))
    iterations = Iterations(state, update, arguments.updates, work.num_envs * work.num_steps)
    iterations()
    parameters = sum(leaf.size for leaf in jax.tree_util.tree_leaves(state[0].params))
    versions = {name: version(name) for name in ("jax", "flax", "optax", "distrax", "gymnax")}
    return Worker("purejaxrl", versions, parameters, partial(repeat, iterations))


class Iterations:
    """Training whose calls run several iterations of rollout and update.

    Args:
        state: of PureJaxRL's runner.
        update: its iteration.
        updates: iterations of a call.
        rollout_size: environment steps of an iteration.
    """

    def __init__(self, state: Any, update: Any, updates: int, rollout_size: int):
        import jax

        def run_several(state: Any) -> tuple[Any, Any]:
            state, metric = jax.lax.scan(update, state, None, updates)
            return state, metric["returned_episode"].sum()

        # Some numbers of the first state have another type than later, which would compile everything twice.
        later, _ = jax.eval_shape(run_several, state)
        self.state = jax.tree_util.tree_map(lambda leaf, like: jax.numpy.asarray(leaf, like.dtype), state, later)
        self.call, self.env_steps = jax.jit(run_several), updates * rollout_size

    def __call__(self) -> tuple[int, int]:
        """Return the environment steps and the ended episodes of the call."""
        self.state, episodes = self.call(self.state)
        return self.env_steps, int(episodes)  # reading the number waits for the computation


def make_task(name: str) -> tuple[Any, Any]:
    """Return the environment of a workload and its parameters as gymnax would make them."""
    import gymnax
    import jax
    import jax.numpy as jnp
    from gymnax.environments import spaces

    class CartPoleNoVelocity:
        """gymnax's CartPole-v1 showing cart position and pole angle only."""

        reward_scale = 0.02

        def __init__(self) -> None:
            self.env, self.params = gymnax.make("CartPole-v1")

        def observation_space(self, params: Any) -> Any:
            return spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32)

        def action_space(self, params: Any) -> Any:
            return spaces.Discrete(2)

        def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
            obs, state = self.env.reset(key, params)
            return obs[::2], state

        def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
            obs, state, reward, *ends, _ = self.env.step(key, state, action, params)
            done = ends[0] if len(ends) == 1 else ends[0] | ends[1]  # gymnax 1.0 tells truncations apart
            return obs[::2], state, self.reward_scale * reward, done, {}

    class RepeatPrevious:
        """``envs.repeat_previous`` with its default sizes. State: the last symbols, newest first, and the time."""

        k, num_symbols, episode_length, params = 4, 4, 52, None

        def observation_space(self, params: Any) -> Any:
            return spaces.Box(0.0, 1.0, (self.num_symbols,), jnp.float32)

        def action_space(self, params: Any) -> Any:
            return spaces.Discrete(self.num_symbols)

        def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
            symbols = jax.random.randint(key, (self.k + 1,), 0, self.num_symbols)
            return jax.nn.one_hot(symbols[0], self.num_symbols), (symbols, jnp.zeros((), jnp.int32))

        def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
            symbols, time = state
            right = jnp.where(action == symbols[self.k], 1.0, -1.0)
            reward = (time >= self.k) * right / (self.episode_length - self.k)
            done = time + 1 == self.episode_length
            new = jax.random.randint(key, (1,), 0, self.num_symbols)  # also the first one of a new episode
            symbols = jnp.concatenate([new, symbols[:-1]])
            return jax.nn.one_hot(new[0], self.num_symbols), (symbols, jnp.where(done, 0, time + 1)), reward, done, {}

    classes: dict[str, Callable[[], Any]] = {"w1": CartPoleNoVelocity, "w3": RepeatPrevious}
    task = classes[name]()
    return task, task.params


def main(argv: Sequence[str] | None = None) -> None:
    """Run the worker."""
    parser = workloads.make_parser(__doc__, whole_rollouts=True)
    parser.add_argument("--checkout", type=Path, required=True, metavar="DIR", help="of luchris429/purejaxrl")
    parser.add_argument("--updates", type=int, default=2, metavar="K", help="iterations in one compiled call")
    arguments = parser.parse_args(argv)
    if arguments.workload == "w2":
        parser.error("w2 does not run in PureJaxRL: its environments must be written in JAX")
    serve(partial(build, arguments))


if __name__ == "__main__":
    main()

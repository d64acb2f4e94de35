"""Mistakes on command lines: each must end in one sentence on stderr and an exit code, before any work."""

from collections.abc import Iterator

CommandLine = tuple[str, tuple[str, ...]]
"""The name of a command and its arguments."""

MAZE = ("env=t_maze", "env.length=2")
NO_NUMBER = ("abc", "true", "[1]", "{a:1}", "nan", "''", "1e400", "ü", "1_", "0x1G", "1 2", "-inf")
INTEGERS = ("seed", "total_steps", "num_envs", "num_steps", "final_episodes", "agent.epochs", "env.length")
FLOATS = ("agent.learning_rate", "agent.gamma", "agent.clip", "agent.max_grad_norm")
OTHERS = {  # key -> values that it cannot have
    "num_envs": ("0", "-1", "1.5", "-0.5", "null", "99999999999999999999999.5"),
    "seed": ("-1", "1e20", "null", "0.5"),
    "total_steps": ("0", "null", "-0"),
    "evaluate_every": ("0", "-5", "often"),
    "checkpoint_every": ("0", "null", "1.5"),
    "threads": ("0", "many", "null", "1.5", "[1]"),
    "threshold": ("high", "[1]", "true", "{}"),
    "stop_at_threshold": ("1", "maybe", "null", "[]"),
    "device": ("tpu", "3", "null", "cuda:99", "''", "cpu:x", "meta:"),
    "agent.learning_rate": ("0", "-1", "null", "inf"),
    "agent.gamma": ("1.2", "-0.1", "null"),
    "agent.clip": ("0", "-1"),
    "agent.epochs": ("0", "1.5", "null"),
    "agent.bptt": ("0", "-1", "3", "two"),
    "agent.burn_in": ("-1", "1e9", "null"),
    "agent.ratio": ("foo", "null", "1", "[joint]"),
    "agent.clip_schedule": ("3", "null", "true", "adaptive"),
    "agent.state_stride": ("0", "7", "null"),
    "agent.num_minibatches": ("0", "100000", "null"),
    "agent.layer_size": ("0", "-1", "big"),
    "agent.core": ("gru", "null", "3", "[gru]"),
    "agent.core.hidden_size": ("0", "-1", "1.5", "null", "big"),
    "agent.core.dropout": ("1.5", "-0.1", "some"),
    "agent._target_": ("rl.agents.Nobody", "rl.agents", "nowhere", "''", "null", "3", "os.sep", "rl..agents"),
    "agent.core._target_": ("rl.cores.lsmt", "rl.cores", "[]"),
    "env._target_": ("nowhere.Env", "envs.t_maze", "envs.", ".", "envs.t_maze.TMaze.reset.x", "true"),
    "env.length": ("0", "-3", "null", "2.5", "long"),
    "env.passive": ("1", "null", "perhaps"),
    "init_from": ("nowhere", "''", "/", "1,2", "~nobody/x"),
    "resume": ("nowhere", "/", "a,b", "[nowhere]", "~nobody/x"),
    "run_dir": ("/proc/nowhere/run", "/dev/null/run"),
    "trust": ("3", "[1]", "{a: 1}", "[null]"),
}
KEYS = (  # that there are not, near to those that there are and far from them
    *("totl_steps=8", "Seed=1", "seed_=1", "steps=8", "agnt.clip=0.1", "agent.clib=0.1", "agent.learning_rat=1e-3"),
    *("agent.seed=3", "agent.device=cpu", "agent.core.hidden_sise=5", "agent.core.input_size=3", "env.num_envs=3"),
    *("env.lenght=5", "unheard.of=1", "agent.a.b.c=1", "agent.clip.x=1", "seed.x=1", "env.length.x=1", "x=", "ü=1"),
    *("agent.=1", ".agent=1", "agent..clip=1", "agent[0]=1", "a b=1", "sédé=3", "1=2", "_target_=x", "defaults=[]"),
    *("hydra=x", "hydra.run.dri=x", "hydra.nothing=1", "hydra/launcher=nothing", "hydra/sweeper=nothing"),
    *("hydra.mode=x", "hydra.verbose=[1", "hydra/job_logging=nothing", "hydra.job.chdir=[x"),
)
GROUPS = (
    *("agent=recurrent_ppo_lst", "agent=", "agent=null", "agent=3", "agent=[a,b]", "agent={a:1}", "agent=a/b"),
    *("agent=../x", "agent/core=lsmt", "agent/core=", "agent/cor=gru", "agent/core=null", "agent/core/x=1"),
    *("core=gru", "env=t_mase", "env=xyz", "env=null", "env=''", "env=T_MAZE", "env=ü", "envs=t_maze"),
    *("experiment=t_maze_11", "experiment=[quick", "experiment=quick,full", "experiment=3", "experiments=quick"),
    *("agent@x=recurrent_iqn", "agent@agent.members.x=nobody", "env@=t_maze", "agent:x=1", "+agent=recurrent_iqn"),
    *("+env=t_maze", "+experiment=nothing", "+agent/encoder=nothing", "++agent/core=x", "~agent/cores"),
)  # fmt: skip
SYNTAX = (
    *("seed", "seed:1", "seed =1", "seed= =1", "seed==1", "=1", "=", "==", "seed=1=2", "seed=(1", "seed=[1"),
    *("seed={a", "seed='1", 'seed="1', "seed=1]", "seed=1)", "'seed=1'", "seed=1,", "seed=1,2", "seed=,1"),
    *("seed=a:b:c", "seed={a:}", "seed=f(", "seed=f(1)", "seed=int(x)", "seed=range(1)", "seed=choice()"),
    *("seed=sort(1", "seed=${", "seed=${nothing}", "seed=${oc.env:NO_SUCH_VARIABLE}", "seed=${x:y}", "seed=${agent}"),
    *("seed=${seed}", "seed=$", "seed=\\", "seed=\\'", "seed=\t", "seed=\n", "seed=1\n2", "seed=`1`", "seed=@1"),
    *("seed=%1", "seed=!1", "seed=#1", "seed=*", "seed=&a", "", " ", "+", "++", "~", "~~seed", "+seed", "++seed"),
    *("~nothing", "~agent", "~seed=2", "~seed", "+seed=1", "+++seed=1", "-seed=1", "@", "a@b", "seed@x=1", "seed@=1"),
    *("seed@a:b=1", "日本", "🙂=1", "seed=🙂", "null", "train", "help", "seed 1", "seed=1 num_envs=2", "num_envs=4;"),
    *("agent.clip='0.2", "agent.clip=0,2", "agent.clip=0.2f", "agent.core={hidden_size:3", "env.length=[2"),
    "agent.core={hidden_size:x}",
)  # fmt: skip
OPTIONS = (
    *(("--nothing",), ("--seed", "1"), ("--seed=1",), ("-x",), ("-s", "1"), ("--cfg",), ("--cfg", "nothing")),
    *(("--cfg=",), ("--cfg", "job", "totl=1"), ("--help", "agent=nobody"), ("--help", "totl=1"), ("--package",)),
    *(("--config-dir",), ("--config-dir", "nowhere", "env=mine"), ("--config-name", "nothing")),
    *(("--config-path", "nowhere"), ("--info", "x"), ("--multirun", "totl=1,2"), ("-m", "seed=1,"), ("-m", "seed=,")),
    *(("-m", "agent=nobody,recurrent_iqn"), ("-m", "env=t_mase,t_maze")),
    *(("-m", "seed=[1"), ("-m", "resume=nowhere")),
    *(("-m", "seed=range(x)"), ("-m", "hydra/launcher=nothing", "seed=1"), ("--resolve", "totl=1")),
)  # fmt: skip
GYMNASIUM = (
    *("env.id=CartPol-v1", "env.id=null", "env.id=''", "env.id=xyz:CartPole-v1", "env.id=:", "env.id=:CartPole-v1"),
    *("env.id=3", "env.id=[CartPole-v1]", "env.id=CartPole-v99", "env.id=..:x", "env.id=a b", "env.id=os:CartPol-v1"),
    *("env.wrappers=[nowhere.Wrapper]", "env.wrappers=[gymnasium.wrappers.Nothing]", "env.wrappers=[3]"),
    *("env.wrappers=x", "env.wrappers=[{path:3}]", "env.wrappers=[{}]", "env.wrappers=[os.getcwd]"),
    *("env.wrappers=[[]]", "env.speed=3", "env.wrappers=[gymnasium.wrappers.TransformReward]"),
    *("env.wrappers=[{path:gymnasium.wrappers.ClipAction,x:1}]", "env.vectorization_mode=fast"),
    *("env.vectorization_mode=null", "env.num_envs=2", "env.id=ALE/X-v5", "env.render_mode=3"),
)  # fmt: skip
ELSEWHERE = {  # command -> what is wrong with its arguments; RUN stands for a finished run
    "evaluate": (
        *("", "run=nowhere", "run=''", "run=null", "run=[RUN]", "run={a:1}", "run=RUN/config.yaml"),
        *("run=RUN episodes=0", "run=RUN episodes=few", "run=RUN episodes=1.5", "run=RUN episodes=null"),
        *("run=RUN seed=x", "run=RUN seed=-1", "run=RUN device=tpu", "run=RUN episods=3", "run=RUN env=copy_sequence"),
        *("run=RUN agent.clip=1", "run=RUN trust=3", "RUN", "runs=RUN", "run=RUN,RUN", "run=RUN --nothing"),
        *("run=RUN episodes=1e400", "run=RUN seed=1e20"),
    ),
    "record": (
        *("", "run=nowhere", "run=RUN episodes=0", "run=RUN episodes=x", "run=RUN greedy=3", "player=nowhere.Player"),
        *("player=os.getcwd env=t_maze", "player=nowhere.Player env=t_maze", "run=RUN player=x"),
        *("player=3 env=t_maze", "run=RUN output=RUN", "run=RUN output=null"),
        *("run=RUN seed=-1", "run=RUN outptu=x", "player=envs.players.TMazeExpert env=nothing"),
    ),
    "export": (
        *("", "run=nowhere", "run=RUN output=policy.xyz", "run=RUN output=/dev/null/x.onnx", "run=RUN steps=0"),
        *("run=RUN steps=x", "run=RUN seed=-1", "run=RUN output=null", "run=RUN outptu=x.onnx", "run=RUN output=''"),
    ),
    "imitate": (
        *("", "data=nowhere", "data=[]", "data=nowhere.slp", "data=null", "data=nowhere env=xyz", "resume=nowhere"),
        *("data=nowhere imitation.epoch=3", "data=nowhere imitation.epochs=x", "data=nowhere seed=x", "dat=x"),
        *("data={a:1}", "resume=RUN", "data=nowhere imitation=x", "data=nowhere imitation._target_=nowhere"),
        "data=nowhere agent=xyz",
    ),
    "plot": (
        *("", "runs=[nowhere]", "runs=nowhere", "runs=[]", "runs=null", "runs=3"),
        *("runs=[RUN] tag=losses/policy_lost", "runz=[RUN]", "runs=[RUN", "runs={a:1}"),
        *("runs=[RUN] output=/dev/null/x.png", "runs=[RUN] tag=[]", "runs=[null]", "runs=[RUN] output=null"),
        *("runs=[RUN] tag=null", "runs=[[RUN]]", "run=RUN"),
    ),
    "char_lm": (
        *("core=lsmt", "text=nowhere.txt", "steps=x", "steps=-1", "steps=null", "batch=0", "block=0"),
        *("learning_rate=0", "learning_rate=nan", "weights=nowhere", "weights=RUN", "temperature=-1"),
        *("temperature=hot", "prompt=''", "seed=x", "core.hidden_size=0", "core.hidden_sise=3", "carry=3"),
        *("device=tpu", "decay=2", "core=null", "text=RUN", "lr=1"),
    ),
    "realtime": (
        *("cores=[lsmt]", "cores=[]", "cores=3", "steps=0", "steps=x", "window=null", "frame_ms=x", "seed=-1"),
        *("core=gru", "options.gur.num_layers=2", "options.gru.layers=2 cores=[gru]", "options=3"),
        *("output=/dev/null/x.json", "output=null", "cores={a:1}", "hidden_size=0", "input_size=-1", "cores=[gru"),
        "options.gru=3 cores=[gru]",
    ),
}  # fmt: skip


def list_command_lines(run_dir: str) -> list[CommandLine]:
    """Return command lines with one mistake each.

    Args:
        run_dir: a finished training run, which none of them may change.
    """
    return [*_list_training(), *_list_elsewhere(run_dir)]


def _list_training() -> Iterator[CommandLine]:
    """Yield mistakes in training on a maze, and in a gymnasium environment."""
    for key in INTEGERS + FLOATS:
        for value in NO_NUMBER:
            yield "train", (*MAZE, f"{key}={value}")
    for key, values in OTHERS.items():
        for value in values:
            yield "train", (*MAZE, f"{key}={value}")
    for argument in (*KEYS, *GROUPS, *SYNTAX):
        yield "train", (*MAZE, argument)
    for arguments in OPTIONS:
        yield "train", (*MAZE, *arguments)
    for argument in GYMNASIUM:
        yield "train", ("env=gymnasium", argument)


def _list_elsewhere(run_dir: str) -> Iterator[CommandLine]:
    """Yield mistakes in the other commands."""
    for name, lines in ELSEWHERE.items():
        for line in lines:
            yield name, tuple(argument.replace("RUN", run_dir) for argument in line.split())

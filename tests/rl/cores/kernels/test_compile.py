"""The kernels compile for GPUs that are not there: the interpreter runs what a compiler may refuse."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
from importlib import import_module
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from rl.cores.kernels import mamba, mingru, products

blocks = {name: products.choose_blocks(512, size)[1] for name, size in (("rnn", 40), ("gru", 256), ("lstm", 128))}
blocks |= {"mingru": {"H": 128, "BLOCK": mingru.BLOCK}, "mamba": mamba.choose_blocks(64, 256, 16)[1]}
for name, constants in blocks.items():
    for kernel in ("_forward", "_backward"):
        function = getattr(import_module(f"rl.cores.kernels.{name}"), kernel)
        kinds = {"starts": "*i1", "T": "i32", "B": "i32", "programs": "i32"} | dict.fromkeys(constants, "constexpr")
        signature = {argument: kinds.get(argument, "*fp32") for argument in function.arg_names}
        values = {(function.arg_names.index(key),): value for key, value in constants.items() if key in signature}
        options = {key: constants[key] for key in ("num_warps", "num_stages") if key in constants}
        for capability, memory in ((80, 163 << 10), (90, 227 << 10)):
            source = ASTSource(function, signature=signature, constexprs=values)
            made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            assert made.metadata.shared <= memory, (name, kernel, capability, made.metadata.shared)
            print(name, kernel, capability)
"""


def test_kernels_compile_and_fit_into_the_shared_memory(tmp_path):
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    variables |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=variables, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 5 * 2 * 2

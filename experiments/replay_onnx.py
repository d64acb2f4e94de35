"""Play recorded inputs through an exported policy and compares all that comes out; needs numpy and onnxruntime alone.

python replay_onnx.py policy.onnx policy.npz
"""

import sys

import numpy as np
import onnxruntime


def replay(model: str, recording: str) -> dict[str, float]:
    """Play a recording through a model and compare.

    Args:
        model: path of the ONNX file.
        recording: path of the recording, an ``.npz`` file.

    Returns:
        The largest difference of each output.

    Raises:
        AssertionError: a difference is above 1e-5, or an action differs where no two are as good.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names, data = [output.name for output in session.get_outputs()], dict(np.load(recording))
    given = {name.removeprefix("input/"): array for name, array in data.items() if name.startswith("input/")}
    dtypes = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    state = {  # zeros with the batch axis of the recording
        leaf.name: np.zeros((given["start"].shape[1], *leaf.shape[1:]), dtypes[leaf.type])
        for leaf in session.get_inputs()
        if leaf.name.startswith("state.")
    }
    worst, noted = dict.fromkeys(names, 0.0), {t: row for row, t in enumerate(data["states_at"])}
    for t in range(len(given["start"])):
        now = {name: array[t] for name, array in given.items()}
        out = dict(zip(names, session.run(names, now | state), strict=True))
        state = {name: out[f"next_{name}"] for name in state}  # fed back; where start is set the model clears it
        for name, actual in out.items():
            if name.startswith("next_state.") and t not in noted:
                continue
            expected = data[f"output/{name}"][noted[t] if name.startswith("next_state.") else t]
            rows = data["decided"][t] if name.endswith("action") else slice(None)  # not where two are as good
            assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
            np.testing.assert_allclose(actual[rows], expected[rows], rtol=1e-5, atol=1e-5, err_msg=f"{name}, step {t}")
            difference = np.abs(actual[rows].astype(float) - expected[rows])
            worst[name] = max(worst[name], float(difference.max(initial=0.0)))
    return worst


if __name__ == "__main__":
    for name, difference in replay(*sys.argv[1:]).items():
        print(f"{name:<24} equal to {difference:.1e}")

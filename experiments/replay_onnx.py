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
        ValueError: one of the files is missing or damaged, or they do not belong together.
        AssertionError: a difference is above 1e-5, or an action differs where no two are as good.
    """
    data = read_recording(recording)
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise ValueError(f"{model} is missing, damaged or no ONNX model ({type(error).__name__})") from error
    names = [output.name for output in session.get_outputs()]
    unknown = [name for name in names if f"output/{name}" not in data]
    if unknown:
        raise ValueError(f"{recording} is not of {model}: it has no output/{unknown[0]}")
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


def read_recording(path: str) -> dict[str, np.ndarray]:
    """Read what ``export`` recorded.

    Raises:
        ValueError: the file is missing, damaged or another's.
    """
    try:
        with open(path, "rb") as opened, np.load(opened) as file:
            data = {name: file[name] for name in file.files}
    except Exception as error:  # a missing, damaged or empty archive raises errors without a common base
        raise ValueError(f"{path} is missing, damaged or no recording of export ({type(error).__name__})") from error
    missing = [name for name in ("input/start", "states_at", "decided") if name not in data]
    if missing:
        raise ValueError(f"{path} is no recording of export: it has no {missing[0]}")
    steps, noted = (data[name].shape[:1] for name in ("decided", "states_at"))
    for name, array in data.items():
        rows = noted if name == "states_at" or name.startswith("output/next_state.") else steps
        if not rows or array.shape[:1] != rows or array.dtype.kind not in "biuf":
            raise ValueError(f"{path} is damaged: {name} has another length than the rest, or holds no numbers")
    return data


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give two files: python replay_onnx.py policy.onnx policy.npz")
    try:
        for name, difference in replay(*sys.argv[1:]).items():
            print(f"{name:<24} equal to {difference:.1e}")
    except ValueError as fault:
        sys.exit(f"replay_onnx: {fault}")

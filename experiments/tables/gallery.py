"""What a memory is worth, as pictures: return over steps with the memory kept, and with it zeroed in every step."""

from pathlib import Path

from experiments.launch.run_folder import read_result
from experiments.tables.curves import make_panels, read_curve
from experiments.tables.figures import Band, draw_curves

KEPT, ZEROED = "eval/episodic_return", "eval/episodic_return_memory_zeroed"
LINES = {KEPT: "memory kept", ZEROED: "memory zeroed"}
LEVELS = {"optimal_return": "best return", "memoryless_return": "best without memory"}


def draw_memory(
    groups: dict[str, list[Path]], output: Path, band: Band = "ci", panel_size: tuple[float, float] | None = None
) -> None:
    """Draw a panel for each group of runs: evaluation return with the memory kept and zeroed, and what is known of it.

    Args:
        groups: title of a panel -> the folders of its seeds; their runs were evaluated with the memory zeroed, too.
        output: the PNG file.
        band: see ``draw_curves``.
        panel_size: see ``open_figure``.

    Raises:
        NoTagError: a run was not.
    """
    panels, levels = make_panels(), {}
    for title, folders in groups.items():
        for folder in folders:
            for tag, name in LINES.items():
                panels[title][name].append(read_curve(folder, tag))
        levels[title] = read_levels(folders[0])
    draw_curves(panels, "evaluation return", output, levels, band, panel_size)


def read_levels(folder: Path) -> dict[str, float]:
    """Return what is known of the task of a run: its best return, and that of the best player without a memory."""
    result = read_result(folder) if (folder / "result.json").is_file() else {}
    return {name: result[key] for key, name in LEVELS.items() if result.get(key) is not None}

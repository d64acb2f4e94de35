"""Draw the two pictures of the page on architecture as SVG files beside this script.

python docs/drawings.py
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

INK, SOFT, PAPER = "#1f2933", "#616e7c", "#ffffff"
BLUE, GREEN, AMBER, RED, GREY = "#2f6fb2", "#2e8540", "#b7791f", "#c0392b", "#9aa5b1"
TINTS = {BLUE: "#e8f1fa", GREEN: "#e6f4ea", AMBER: "#fdf3e1", RED: "#fbe9e7", GREY: "#f1f3f5"}

FOLDERS = {  # name: left, top, width, height, colour, what it holds
    "experiments": (20, 20, 880, 62, AMBER, ["the commands; the only place that knows Hydra; reads conf/"]),
    "rl.recordings": (20, 130, 190, 62, BLUE, ["recorded episodes,", "and learning from them"]),
    "rl.export": (220, 130, 150, 62, BLUE, ["a trained policy for", "other programs"]),
    "rl.foreign": (380, 130, 110, 62, BLUE, ["agents of other", "programs"]),
    "rl.memory_check": (500, 130, 150, 62, BLUE, ["does an agent", "remember?"]),
    "rl.agents": (20, 250, 440, 62, BLUE, ["act, observe, learn; players; the words of older clients"]),
    "rl.training": (500, 250, 200, 62, BLUE, ["loop, evaluation, metrics;", "knows the Agent protocol only"]),
    "rl.ppo": (20, 360, 130, 62, BLUE, ["losses, rollout,", "update"]),
    "rl.iqn": (170, 360, 130, 62, BLUE, ["losses, replay,", "update"]),
    "rl.cores": (340, 360, 120, 282, BLUE, ["the memories:", "the only files", "that know what", "a state holds"]),
    "rl.networks": (20, 470, 280, 62, BLUE, ["heads, and networks made of all parts;", "a core is handed in"]),
    "rl.encoders": (20, 580, 280, 62, BLUE, ["from an observation to features:", "one file for each"]),
    "rl.types and the ground": (
        *(20, 690, 680, 62),
        GREEN,
        ["checks, schema, spaces, trust, checkpoint, normalisation, flat_adam, sizes, graphs, shards, schedules"],
    ),
    "envs": (
        740,
        130,
        160,
        622,
        GREY,
        ["the environments:", "numpy and Gymnasium", "", "import no rl, and", "torch only where", "a device is named"],
    ),
}
JOINS = [[(x, 192), (x, 221)] for x in (295, 435)]  # the others of this row meet the line from rl.recordings
ARROWS = [  # points of each line
    *([(x, 82), (x, 130)] for x in (115, 295, 435, 575, 820)),
    [(660, 82), (660, 250)],
    [(115, 192), (115, 221), (575, 221), (575, 250)],
    [(240, 221), (240, 250)],
    *([(x, 312), (x, 360)] for x in (85, 235, 400)),
    *([(x, 422), (x, 470)] for x in (85, 235)),
    [(160, 532), (160, 580)],
    *([(x, 642), (x, 690)] for x in (160, 400)),
    [(600, 312), (600, 690)],
]


def text(
    x: float, y: float, words: str, size: int = 13, colour: str = INK, anchor: str = "middle", bold: bool = False
) -> str:
    """Return a line of text; ``y`` is its base line."""
    weight = ' font-weight="bold"' if bold else ""
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, filled: bool = True) -> str:
    """Return a rounded box with a border in ``colour``."""
    fill = TINTS[colour] if filled else PAPER
    size = f'width="{width}" height="{height}"'
    return f'<rect x="{x}" y="{y}" {size} rx="6" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'


def line(points: Sequence[tuple[float, float]], colour: str = SOFT, head: bool = False, dashed: bool = False) -> str:
    """Return a line through ``points``, with an arrow head at its end if asked."""
    style = (' marker-end="url(#head)"' if head else "") + (' stroke-dasharray="5 4"' if dashed else "")
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{style}/>'


def drawing(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return a whole SVG file on white paper, so that it reads in a dark page too."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        f"<defs>{head}</defs>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def imports() -> str:
    """Draw who imports whom."""
    parts = [*map(line, JOINS), *(line(points, head=True) for points in ARROWS)]
    for name, (x, y, width, height, colour, words) in FOLDERS.items():
        parts.append(box(x, y, width, height, colour))
        top = y + height / 2 - 9 * len(words) + 6
        parts.append(text(x + width / 2, top, name, 15, colour if colour != GREY else INK, bold=True))
        parts += [text(x + width / 2, top + 18 * (i + 1), some, 12) for i, some in enumerate(words)]
    return drawing(920, 772, "Who imports whom: every arrow runs downwards", parts)


STEPS, BPTT, LEFT, CELL = 8, 4, 190, 84  # of the rollout, of a sequence; where the first step begins, its width
STARTS, ENDS = (0, 3, 6), {2: ("terminated", RED), 5: ("truncated", AMBER)}
NEXT_VALUES = ("V(o1)", "V(o2)", "0", "V(o4)", "V(o5)", "V(final)", "V(o7)", "V(o8)")
ROWS = {  # name: top, what it is
    "state": (56, "stored before the step"),
    "obs": (108, "what is acted on"),
    "starts": (160, "it opens an episode"),
    "action": (212, "and its reward"),
    "end": (264, "of the episode"),
    "next value": (316, "that follows the step"),
    "sequences": (376, f"replayed, bptt = {BPTT}"),
}
LEGEND = (
    (RED, "At a dashed line the memory is cleared: no value, no gradient and no advantage crosses it."),
    (SOFT, "s3 and s6 are stored as they were before that; the start clears them when the step is run."),
    (SOFT, "V(final) is the value of the final observation, under the state that followed step 5."),
    (SOFT, "o8 is the observation after the rollout; its value stands in for all that is still to come."),
    (SOFT, "Replay needs s0 and s4 only. With state_stride = 4 the other states are not stored."),
)


def step(t: int) -> list[str]:
    """Return what is drawn of one step."""
    top = {name: y for name, (y, _) in ROWS.items()}
    x, middle, first = LEFT + CELL * t, LEFT + CELL * (t + 0.5), t % BPTT == 0
    ended, colour = ENDS.get(t, ("-", GREY))
    return [
        text(middle, 36, f"step {t}", 13, SOFT),
        box(x + 6, top["state"], CELL - 12, 36, BLUE if first else GREY),
        text(middle, top["state"] + 23, f"s{t}", 14, BLUE if first else SOFT, bold=first),
        box(x + 6, top["obs"], CELL - 12, 36, GREY, filled=False),
        text(middle, top["obs"] + 23, f"o{t}", 14),
        text(middle, top["starts"] + 23, "true" if t in STARTS else "-", 13, RED if t in STARTS else GREY),
        text(middle, top["action"] + 23, f"a{t}, r{t}", 13),
        text(middle, top["end"] + 23, ended, 12, colour),
        box(x + 6, top["next value"], CELL - 12, 36, GREEN),
        text(middle, top["next value"] + 23, NEXT_VALUES[t], 12),
    ]


def rollout() -> str:
    """Draw how stored states, starts and ends lie along the rollout of one environment."""
    parts = [part for t in range(STEPS) for part in step(t)]
    for name, (y, note) in ROWS.items():
        parts += [text(20, y + 16, name, 14, anchor="start", bold=True), text(20, y + 32, note, 11, SOFT, "start")]
    bracket = ROWS["sequences"][0] + 12
    for first in range(0, STEPS, BPTT):
        left, right = LEFT + CELL * first + 6, LEFT + CELL * (first + BPTT) - 6
        parts.append(line([(left, bracket), (left, bracket + 12), (right, bracket + 12), (right, bracket)], BLUE))
        parts.append(text((left + right) / 2, bracket + 32, f"replayed from s{first}", 12, BLUE))
    for t in ENDS:
        x = LEFT + CELL * (t + 1)
        parts.append(line([(x, 44), (x, bracket + 12)], RED, dashed=True))
    foot = bracket + 66
    parts += [text(LEFT + 6, foot + 20 * i, words, 12, colour, "start") for i, (colour, words) in enumerate(LEGEND)]
    size = LEFT + CELL * STEPS + 20, foot + 20 * len(LEGEND)
    return drawing(*size, "States, starts and ends along a rollout of eight steps", parts)


def main() -> None:
    """Write both files."""
    for name, draw in (("imports.svg", imports), ("rollout.svg", rollout)):
        (Path(__file__).parent / name).write_text(draw())


if __name__ == "__main__":
    main()

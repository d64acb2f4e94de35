"""Write the page on metrics from the glossary in the code.

python docs/metrics_page.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# Metrics

<!-- written by python docs/metrics_page.py from GLOSSARY in rl/training/metrics.py -->

These are the tags in TensorBoard. The x axis counts environment steps, or recorded steps for `imitate`. Where several
agents share a world, the name of a member stands in the tag: `losses/first/policy_loss`.

Look at `diagnostics/ratio_error` first. It must be about 1e-6: then the replay of this run is exact.
[Does it not learn?](diagnostics.md) says what the others tell, and what to do.
"""
TITLES = {
    "charts": "Progress",
    "losses": "Updates",
    "eval": "Evaluations",
    "diagnostics": "Diagnostics",
    "imitation": "Learning from recordings",
    "hparam": "The whole run",
}


def page(glossary: dict[str, str]) -> str:
    """Return the page: one table for each group of tags, in the order of the titles above."""
    groups = {tag.partition("/")[0] for tag in glossary}
    lines = [INTRODUCTION]
    for group in [*TITLES, *sorted(groups - TITLES.keys())]:
        rows = {tag: words for tag, words in glossary.items() if tag.partition("/")[0] == group}
        cells = [f"| `{tag}` | {words.replace('|', chr(92) + '|')} |" for tag, words in rows.items()]
        lines += [f"## {TITLES.get(group, group)}", "", "| tag | meaning |", "|---|---|", *cells, ""]
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(ROOT))
    from rl.training.metrics import GLOSSARY

    (ROOT / "docs" / "metrics.md").write_text(page(GLOSSARY))


if __name__ == "__main__":
    main()

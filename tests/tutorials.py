"""What the tests know of the tutorials."""

import re
from pathlib import Path

TUTORIALS = tuple(
    f"docs/tutorials/{name}.md" for name in ("first_task", "own_environment", "deploy", "recordings", "vote")
)
"""Pages whose blocks need what their commands have left: ``test_tutorials.py`` runs them from top to bottom."""

FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_files(text: str, folder: Path) -> None:
    """Save the blocks of a page that begin with the name of a file, as its reader does."""
    for name, content in FILE.findall(text):
        (folder / name).write_text(content)

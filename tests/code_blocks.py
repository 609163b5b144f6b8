"""Runs the Python in a page, block after block, and compares what it prints with what is shown below it."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
OPTIONAL = ("accelerate", "pytorch_lightning", "tensorboard", "transformers", "wandb")  # need not be installed
# The first line of a block that is a file.
_FILE = re.compile(r"# (\w+\.py)\n")


def run_blocks(document: str, folder: Path) -> dict[str, Any]:
    """Run a page, and return its names; a block that begins with a file's name is written as that file.

    Python has to look into the folder for modules.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.M | re.S)
    assert blocks
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (block, shown) in enumerate(blocks):
        if file := _FILE.match(block):
            (folder / file[1]).write_text(block, encoding="utf-8")
            continue
        with redirect_stdout(StringIO()) as printed:
            try:
                exec(compile(block, f"{document}, block {number}", "exec"), names)
            except ModuleNotFoundError as error:
                if error.name not in OPTIONAL:
                    raise
                pytest.skip(f"{error.name} is not installed: {document} ran up to block {number}")
        assert printed.getvalue() == shown or not shown
    return names

"""docs/names.md is what benchmarks/names.py writes. Whether libraries do so is what benchmarks/names.sh runs."""

from __future__ import annotations

import subprocess
import sys

from code_blocks import ROOT


def test_page_is_written_by_the_program() -> None:
    program = [sys.executable, "-X", "utf8", str(ROOT / "benchmarks/names.py"), "--markdown"]
    written = subprocess.run(program, capture_output=True, check=True).stdout.decode()
    assert written == (ROOT / "docs/names.md").read_text(encoding="utf-8"), (
        "benchmarks/names.py --markdown > docs/names.md"
    )

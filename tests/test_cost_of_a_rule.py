"""What a rule costs that is exported: few cases, for options, formats and ways meet it two by two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
AT_MOST = 112

# A plugin of pytest's that exports one rule more, with a reference, before any test is imported.
EXPORTED = """
def pytest_sessionstart(session):
    import neon.optimizers
    import reference

    class OneMore(neon.optimizers.Adam):
        pass

    class Reference(reference.Adam):
        cases = {"one more": {}}
        tuned = {}

    neon.optimizers.OneMore = OneMore
    neon.optimizers.__all__.append("OneMore")
    reference.REFERENCES["OneMore"] = reference.OneMore = Reference
"""


# What a file of tests imports that has cases of every rule.
TABLES = re.compile(
    r"^from (constructors|rule_cases|exported_optimizers|checkpoint_runs|stored_formats|lowered_kernels) import|"
    r"import .*exported_rules",
    re.MULTILINE,
)


def test_one_rule_more_is_few_cases_more(tmp_path: Path) -> None:
    """It is in every table of rules, and in none with more cases than pairs of features need."""
    (tmp_path / "one_rule_more.py").write_text(EXPORTED)
    files = [path for path in sorted(TESTS.glob("test_*.py")) if TABLES.search(path.read_text(encoding="utf-8"))]
    paths = [str(tmp_path), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "one_rule_more"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    cases = [line for line in done.stdout.splitlines() if re.search(r"\[.*one ?more", line, re.IGNORECASE)]
    found = {case.partition("::")[0].removeprefix("tests/test_").removesuffix(".py") for case in cases}
    assert {"rules", "exactness", "storage", "citizen", "checkpoints", "kernels", "in_backward", "triton"} <= found
    assert len(cases) <= AT_MOST, "\n".join(cases)

#!/usr/bin/env bash
# torch 2.13.0: Optimizer.load_state_dict looks through the list of all parameters for each tensor that it loads.
#
# A checkpoint names parameters by their numbers. For each tensor of each one's state load_state_dict wants to know whether its group is
# fused or capturable, and asks each group whether the number is in its list: a search from the beginning. Twice as many parameters take four
# times as many comparisons: under AdamW six thousand millions for 64,000 parameters in one group, which is a minute, where all else takes seconds.
#
# The numbers of the saved list count how often they are compared. Expected output, by the number of parameters:
#   SGD with momentum   100: 5150 comparisons   200: 20300 comparisons   400: 80600 comparisons
#   AdamW               100: 15050 comparisons   200: 60100 comparisons   400: 240200 comparisons
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch


class Number(int):
    compared = 0

    def __eq__(self, other):
        Number.compared += 1
        return int(self) == int(other)

    __hash__ = int.__hash__


def comparisons(make, count):
    params = [torch.nn.Parameter(torch.zeros(())) for _ in range(count)]
    for param in params:
        param.grad = torch.ones(())
    optimizer = make(params)
    optimizer.step()
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["params"] = [*map(Number, group["params"])]
    saved["state"] = {number: saved["state"][int(number)] for group in saved["param_groups"] for number in group["params"]}
    Number.compared = 0
    optimizer.load_state_dict(saved)
    return Number.compared


for name, make in (
    ("SGD with momentum", lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)),
    ("AdamW", lambda params: torch.optim.AdamW(params, lr=0.1)),
):
    print(f"{name:<19}", "   ".join(f"{count}: {comparisons(make, count)} comparisons" for count in (100, 200, 400)))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
SGD with momentum   100: 5150 comparisons   200: 20300 comparisons   400: 80600 comparisons
AdamW               100: 15050 comparisons   200: 60100 comparisons   400: 240200 comparisons
EXPECTED

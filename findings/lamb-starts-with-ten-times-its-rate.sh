#!/usr/bin/env bash
# pytorch_optimizer 4.1.0: the first steps of Lamb are ten, five, four times as long as lr says.
#
# LAMB makes each step lr times as long as the weights, whatever the update's length. This one takes the ratio from means that are
# not corrected for their start, which the ratio makes good by itself, and then divides the step by the correction 1 - 0.9^t all the
# same. The first steps take 10, 5.3, 3.7 times lr·‖w‖. And above ‖w‖ = 10 steps grow no more: a matrix 4 times as
# long takes steps a quarter as long as asked for.
#
# How long five steps are, in units of lr·‖w‖, for weights of norm 1; and the two-hundredth, for norms 1, 10 and 40. Expected output:
#   first five: [10.0, 5.26, 3.69, 2.91, 2.44]
#   later: [1.0, 1.0, 0.25]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch_optimizer==4.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from pytorch_optimizer import Lamb

LR = 1e-5


def lengths(norm, steps):
    """Of each step, in units of lr·‖w‖."""
    weight = torch.nn.Parameter(torch.full((16,), norm / 4, dtype=torch.float64))
    optimizer, seen = Lamb([weight], lr=LR), []
    for _ in range(steps):
        before = weight.detach().clone()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        seen.append(round(((weight - before).norm() / before.norm()).item() / LR, 2))
    return seen


print("first five:", lengths(1.0, 5))
print("later:", [lengths(norm, 200)[-1] for norm in (1.0, 10.0, 40.0)])
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
first five: [10.0, 5.26, 3.69, 2.91, 2.44]
later: [1.0, 1.0, 0.25]
EXPECTED

#!/usr/bin/env bash
# prodigyopt 1.1.2: a parameter group whose lr is set to 0 goes on moving, at the rate of the other groups.
#
# Prodigy takes one lr for all groups or 0 ("Setting different lr values in different parameter groups is only supported for
# values of 0"): the way to freeze a group, or to let it begin later. A group at 0 no longer feeds its moments and the
# estimate of d, but its step is made all the same, with the largest lr of all groups and the moments as they were left. It
# runs on in its last direction, at full length, whatever its gradient is; and weight decay goes on shrinking it.
#
# Two weights seek 3 from 1 by the gradient w - 3, each in a group of its own; the second's lr is 0 after 20 steps. Then two more
# groups with weight_decay 0.1, the second at 0 from the beginning. Expected output, the second weight after each ten steps from there:
#   AdamW:          [1.96, 1.96, 1.96, 1.96]
#   Prodigy:        [4.17, 14.34, 24.52, 34.69]
#   Prodigy, decay: [1.0, 1.0, 0.64, 0.24]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 prodigyopt==1.1.2 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import contextlib
import io

import torch
from prodigyopt import Prodigy


def second_weight(make, stops):
    """Its value after each ten steps from the step on at which its rate becomes 0."""
    weights = [torch.nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2)]
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = make([{"params": [weight]} for weight in weights])
    seen = []
    for step in range(stops + 31):
        if step == stops:
            optimizer.param_groups[1]["lr"] = 0.0
        if step >= stops and (step - stops) % 10 == 0:
            seen.append(round(weights[1].item(), 2))
        for weight in weights:
            weight.grad = weight.detach() - 3
        optimizer.step()
    return seen


print("AdamW:         ", second_weight(lambda groups: torch.optim.AdamW(groups, lr=0.05, weight_decay=0.0), 20))
print("Prodigy:       ", second_weight(Prodigy, 20))
print("Prodigy, decay:", second_weight(lambda groups: Prodigy(groups, weight_decay=0.1), 0))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
AdamW:          [1.96, 1.96, 1.96, 1.96]
Prodigy:        [4.17, 14.34, 24.52, 34.69]
Prodigy, decay: [1.0, 1.0, 0.64, 0.24]
EXPECTED

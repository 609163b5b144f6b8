#!/usr/bin/env bash
# pytorch_optimizer 4.1.0: MARS decays biases and norms in a group with weight_decay=0, and moves them by 0.003 whatever lr is.
#
# Tensors of one dimension are stepped by AdamW with numbers of their own, lr_1d=0.003 and weight_decay_1d=0.1. Decay is on
# by default for these alone, which are left out of it elsewhere; the group that leaves them out, as every training script
# makes it, has no effect. A lower lr is for matrices alone: with 0.0001 biases go 30 times as far, and 3 more by the decay.
#
# A matrix and a bias of ones after a hundred steps with gradients 0, both in a group with weight_decay=0; then how far the first
# step with gradients 1 moves them, in units of lr. Expected output:
#   AdamW: matrix 1.0, bias 1.0
#   MARS:  matrix 1.0, bias 0.9704
#   AdamW, lr=0.0001: matrix 1.0, bias 1.0
#   MARS,  lr=0.0001: matrix 1.0, bias 33.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch_optimizer==4.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from pytorch_optimizer import MARS


def after(steps, gradient, make):
    matrix, bias = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4))
    optimizer = make([{"params": [matrix, bias], "weight_decay": 0.0}])
    for _ in range(steps):
        for weight in (matrix, bias):
            weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return matrix[0, 0].item(), bias[0].item()


KINDS = {"AdamW": torch.optim.AdamW, "MARS": MARS}
for name, kind in KINDS.items():
    matrix, bias = after(100, 0.0, lambda groups: kind(groups, lr=0.0001))
    print(f"{name + ':':6} matrix {round(matrix, 4)}, bias {round(bias, 4)}")
for name, kind in KINDS.items():
    matrix, bias = after(1, 1.0, lambda groups: kind(groups, lr=0.0001))
    print(f"{name + ',':6} lr=0.0001: matrix {(1 - matrix) / 0.0001:.1f}, bias {(1 - bias) / 0.0001:.1f}")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
AdamW: matrix 1.0, bias 1.0
MARS:  matrix 1.0, bias 0.9704
AdamW, lr=0.0001: matrix 1.0, bias 1.0
MARS,  lr=0.0001: matrix 1.0, bias 33.0
EXPECTED

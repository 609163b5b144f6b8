#!/usr/bin/env bash
# pytorch_optimizer 4.1.0: under SOAP a layer whose inputs stand in another order trains to other weights, by more than a step.
#
# SOAP runs Adam in the eigenvectors of averages of g·gᵀ and gᵀ·g. Of a matrix with more rows than columns the first of these has null
# vectors, and at the first step, which makes the bases, nothing but rounding says which. Two runs in float64 that are the same but
# for the order of columns, in weights and gradients alike, are apart by more than the learning rate after twenty steps. Those of a
# square matrix are not, nor are those of AdamW: element by element there is no order.
#
# How far weights are apart, in units of lr, when the columns are reversed. Expected output:
#   SOAP, 8 x 5: more than 1
#   SOAP, 8 x 8: less than 0.001
#   AdamW, 8 x 5: 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch_optimizer==4.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from pytorch_optimizer import SOAP

LR = 0.01


def trained(make, rows, columns):
    """The weights after twenty steps, with the columns in this order, put back into the first."""
    noise = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(rows, len(columns), dtype=torch.float64))
    optimizer = make([weight], lr=LR)
    for _ in range(20):
        gradient = torch.randn(rows, len(columns), generator=noise, dtype=torch.float64)
        weight.grad = gradient[:, columns].clone()
        optimizer.step()
    return weight.detach()[:, torch.tensor(columns).argsort()]


def apart(make, rows, columns):
    order = list(range(columns))
    return (trained(make, rows, order) - trained(make, rows, order[::-1])).abs().max().item() / LR


far, near = apart(SOAP, 8, 5), apart(SOAP, 8, 8)
print("SOAP, 8 x 5:", "more than 1" if far > 1 else far)
print("SOAP, 8 x 8:", "less than 0.001" if near < 0.001 else near)
print("AdamW, 8 x 5:", apart(torch.optim.AdamW, 8, 5))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
SOAP, 8 x 5: more than 1
SOAP, 8 x 8: less than 0.001
AdamW, 8 x 5: 0.0
EXPECTED

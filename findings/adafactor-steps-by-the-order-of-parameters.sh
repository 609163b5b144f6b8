#!/usr/bin/env bash
# torch 2.13.0: how far torch.optim.Adafactor moves a float32 weight depends on what stands before it in the list of parameters.
#
# eps1=None, the default, means the eps of the weight's dtype. It is looked up once for a group, at the first parameter: behind
# a bfloat16 weight a float32 one is stepped with 0.0078 in the place of 1.2e-7. An update is the gradient over the larger of
# its root mean square and eps1, so with gradients of 1e-4 it comes out 78 times too short. Norms and biases kept in float32
# beside bfloat16 matrices are such weights. The other way round a bfloat16 matrix has float32's eps1. Groups of their own, or
# eps given as a number, step each weight alike in every order.
#
# Twenty steps from 1 with gradients of 1e-4: how far a norm's float32 weight has moved. Expected output:
#   matrix, norm:     norm 0.00256
#   norm, matrix:     norm 0.18209
#   a group for each: norm 0.18209
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch


def moved(order):
    """How far the float32 weight of a norm has gone, beside a bfloat16 matrix."""
    matrix = torch.nn.Parameter(torch.ones(16, 16, dtype=torch.bfloat16))
    norm = torch.nn.Parameter(torch.ones(16))
    optimizer = torch.optim.Adafactor(order(matrix, norm))
    for _ in range(20):
        for weight in (matrix, norm):
            weight.grad = torch.full_like(weight, 1e-4)
        optimizer.step()
    return f"norm {1 - norm[0].item():.5f}"


ORDERS = {
    "matrix, norm:    ": lambda matrix, norm: [matrix, norm],
    "norm, matrix:    ": lambda matrix, norm: [norm, matrix],
    "a group for each:": lambda matrix, norm: [{"params": [matrix]}, {"params": [norm]}],
}
for name, order in ORDERS.items():
    print(name, moved(order))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
matrix, norm:     norm 0.00256
norm, matrix:     norm 0.18209
a group for each: norm 0.18209
EXPECTED

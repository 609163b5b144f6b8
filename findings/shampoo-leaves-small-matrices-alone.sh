#!/usr/bin/env bash
# pytorch_optimizer 4.1.0: ScalableShampoo is SGD for matrices of up to 16 x 16, and says nothing.
#
# Before it divides a tensor into blocks it merges small sides while their product stays below a limit, so that 8 x 8 and 16 x 16 become
# vectors of 64 and of 256, and vectors have no preconditioner. The steps are then those of its graft, which by default is SGD with
# Nesterov momentum: the same bits but for rounding as torch.optim.SGD. A matrix of 32 x 32 is preconditioned.
#
# Whether ten steps, preconditioned from the second on, leave the weights of torch.optim.SGD. Expected output:
#   8 x 8: the weights of SGD
#   16 x 16: the weights of SGD
#   32 x 32: others
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch_optimizer==4.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from pytorch_optimizer import ScalableShampoo


def trained(make, side):
    noise = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(side, side, dtype=torch.float64))
    optimizer = make([weight])
    for _ in range(10):
        weight.grad = torch.randn(side, side, generator=noise, dtype=torch.float64)
        optimizer.step()
    return weight.detach()


def shampoo(params):
    return ScalableShampoo(params, lr=0.01, start_preconditioning_step=2, preconditioning_compute_steps=1)


def sgd(params):
    return torch.optim.SGD(params, lr=0.01, momentum=0.9, nesterov=True)


for side in (8, 16, 32):
    same = torch.allclose(trained(shampoo, side), trained(sgd, side), rtol=1e-12, atol=1e-12)
    print(f"{side} x {side}:", "the weights of SGD" if same else "others")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
8 x 8: the weights of SGD
16 x 16: the weights of SGD
32 x 32: others
EXPECTED

#!/usr/bin/env bash
# muon-optimizer 0.1.0, the program of Muon's author: a matrix whose gradient is None is moved on, and convolutions step by the scale of their kernels.
#
# Where a gradient is None it takes zeros for it, so that every process of a distributed run does as many matrices: momentum goes on,
# and a layer that is left out of a pass keeps moving by whole steps, each as long as the last. Optimizers of torch leave it as it is. And it orthogonalizes
# a convolution as the matrix of its first side by all others, but scales it by the last two sides, those of the kernel: 64 x 27
# asks for a factor of √(64/27), 1.54, and gets √(3/3), 1.
#
# How far a matrix of 8 x 6 moves without a gradient, beside its last step with one; torch's the same. The largest singular value of
# a step of 64 x 3 x 3 x 3, and of 64 x 27, in units of lr, within the iteration's own spread of 0.7 to 1.2. Expected output:
#   moved without a gradient: True
#   torch.optim.Muon: False
#   64 x 3 x 3 x 3: below 1.25
#   64 x 27: below 1.9, above 1.25
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 muon-optimizer==0.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from muon import SingleDeviceMuon

torch.manual_seed(0)


def moves(make):
    weight = torch.nn.Parameter(torch.randn(8, 6))
    optimizer = make([weight])
    weight.grad = torch.randn(8, 6)
    before = weight.detach().clone()
    optimizer.step()
    step = (weight.detach() - before).norm()
    before, weight.grad = weight.detach().clone(), None
    optimizer.step()
    return ((weight.detach() - before).norm() > 0.5 * step).item()


def largest(*shape):
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(64, 27).view(shape)
    SingleDeviceMuon([weight], lr=1.0).step()
    return torch.linalg.svdvals(weight.detach().view(64, 27))[0].item()


print("moved without a gradient:", moves(lambda params: SingleDeviceMuon(params, lr=0.02)))
print("torch.optim.Muon:", moves(lambda params: torch.optim.Muon(params, lr=0.02)))
print("64 x 3 x 3 x 3:", "below 1.25" if (found := largest(64, 3, 3, 3)) < 1.25 else found)
print("64 x 27:", "below 1.9, above 1.25" if 1.25 < (found := largest(64, 27)) < 1.9 else found)
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
moved without a gradient: True
torch.optim.Muon: False
64 x 3 x 3 x 3: below 1.25
64 x 27: below 1.9, above 1.25
EXPECTED

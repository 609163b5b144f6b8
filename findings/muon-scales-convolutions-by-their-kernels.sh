#!/usr/bin/env bash
# muon-optimizer 0.1.0, the program of Muon's author: convolutions step by the scale of their kernels, and gradients are gone after a step.
#
# It orthogonalizes a convolution as the matrix of its first side by all others, as it says, and then scales the step by the last two
# sides of the gradient, which are those of the kernel: 64 x 27 asks for a factor of √(64/27), 1.54, and 64 x 3 x 3 x 3 gets √(3/3).
# The same numbers as a matrix step half as far again. And Nesterov's direction is written into p.grad: what is logged or clipped
# behind step() is no gradient.
#
# The largest singular value of a first step, within the iteration's own spread of 0.7 to 1.2 times the scale, and what a gradient of
# ones is after that step. Expected output:
#   64 x 3 x 3 x 3: below 1.25
#   64 x 27: between 1.25 and 1.9
#   gradients of 1 are 0.0975
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 muon-optimizer==0.1.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from muon import SingleDeviceMuon


def largest(*shape):
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(64, 27, generator=torch.Generator().manual_seed(0)).view(shape)
    SingleDeviceMuon([weight], lr=1.0).step()
    return torch.linalg.svdvals(weight.detach().view(64, 27))[0].item()


weight = torch.nn.Parameter(torch.zeros(8, 6))
weight.grad = torch.ones(8, 6)
SingleDeviceMuon([weight]).step()
print("64 x 3 x 3 x 3:", "below 1.25" if (found := largest(64, 3, 3, 3)) < 1.25 else found)
print("64 x 27:", "between 1.25 and 1.9" if 1.25 < (found := largest(64, 27)) < 1.9 else found)
print("gradients of 1 are", round(weight.grad[0, 0].item(), 4))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
64 x 3 x 3 x 3: below 1.25
64 x 27: between 1.25 and 1.9
gradients of 1 are 0.0975
EXPECTED

#!/usr/bin/env bash
# bitsandbytes 0.50.2: LAMB and LARS never move a tensor that starts at 0, unless it is large enough for 8 bits.
#
# Both bound an update by a share of the weights' norm (max_unorm), and the norm of zeros is 0: biases, and the second matrix
# of LoRA, stay as they are for ever. Elsewhere (timm, optax, keras, the authors) the ratio is 1 where a norm is 0. The 8-bit
# classes are different again: from 4096 elements on they have no ratio at all, so that one element more makes the weights
# move, by Adam; below, the same class keeps 32 bits, and the bound.
#
# A hundred steps from 0 towards 1 by the gradient w - 1, for tensors of 4095 and 4096 elements. Expected output:
#   Adam:     [0.78, 0.78]
#   LAMB:     [0.0, 0.0]
#   LARS:     [0.0, 0.0]
#   LAMB8bit: [0.0, 0.75]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 bitsandbytes==0.50.2 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from bitsandbytes import optim


def reached(make):
    seen = []
    for size in (4095, 4096):
        weight = torch.nn.Parameter(torch.zeros(size))
        optimizer = make([weight])
        for _ in range(100):
            weight.grad = weight.detach() - 1
            optimizer.step()
        seen.append(round(weight[0].item(), 2))
    return seen


print("Adam:    ", reached(lambda params: optim.Adam(params, lr=0.01)))
print("LAMB:    ", reached(lambda params: optim.LAMB(params, lr=0.01)))
print("LARS:    ", reached(lambda params: optim.LARS(params, lr=0.01, momentum=0.9)))
print("LAMB8bit:", reached(lambda params: optim.LAMB8bit(params, lr=0.01)))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" 2> "$folder/log" | tee "$folder/seen" || { cat "$folder/log"; exit 1; }
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
Adam:     [0.78, 0.78]
LAMB:     [0.0, 0.0]
LARS:     [0.0, 0.0]
LAMB8bit: [0.0, 0.75]
EXPECTED

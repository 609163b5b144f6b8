#!/usr/bin/env bash
# torch 2.13.0: torch.distributed.checkpoint loads no optimizer state, without a word, once parameters have gradients.
#
# The documented way to resume is to take the state dict of a fresh optimizer, have dcp.load fill it, and set it. torch makes
# the fresh optimizer's states for that by a step with zero gradients, but not where it finds a gradient: a warm-up
# backward pass, or gradients kept from before, and the state dict has groups alone. dcp.load fills what is there, set finds
# nothing wrong, and Adam begins anew at step 1.
#
# Three steps of AdamW are saved and loaded into a fresh optimizer, without and with gradients there. Expected output:
#   no gradients: steps [3.0, 3.0]
#   gradients:    steps []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

warnings.simplefilter("ignore")  # that this is one process


def model_and_optimizer():
    model = torch.nn.Linear(2, 2)
    return model, torch.optim.AdamW(model.parameters())


def backward(model):
    model(torch.ones(1, 2)).sum().backward()


model, optimizer = model_and_optimizer()
for _ in range(3):
    backward(model)
    optimizer.step()
dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=sys.argv[1])

for name, gradients in (("no gradients:", False), ("gradients:   ", True)):
    model, optimizer = model_and_optimizer()
    if gradients:
        backward(model)
    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(state, checkpoint_id=sys.argv[1])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    print(name, "steps", [found["step"].item() for found in optimizer.state.values()])
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" "$folder/checkpoint" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
no gradients: steps [3.0, 3.0]
gradients:    steps []
EXPECTED

#!/usr/bin/env bash
# bitsandbytes 0.50.2: RMSprop takes momentum, SGD takes nesterov and dampening, LAMB bias_correction, and none does anything.
#
# The arguments have torch's names, and are accepted without a word; what each class hands on has no place for them. Other
# options are refused where they do not exist (centered, lr_decay, amsgrad in 8 bits), which makes silence look like support.
# Adam with weight_decay, too, is not what torch calls so: its decay is decoupled, and its steps are AdamW's.
#
# Where a weight of 1 is after four steps, without and with the option, and by Adam and AdamW. Expected output:
#   RMSprop, momentum=0.9: torch -0.782 -3.791, bitsandbytes -0.782 -0.782
#   SGD, nesterov=True: torch 0.493 0.344, bitsandbytes 0.493 0.493
#   SGD, dampening=0.5: torch 0.493 0.575, bitsandbytes 0.493 0.493
#   LAMB, bias_correction=False: bitsandbytes 0.909 0.909
#   Adam and AdamW, weight_decay=0.5: torch 0.638 0.521
#   Adam and AdamW, weight_decay=0.5: bitsandbytes 0.521 0.521
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 bitsandbytes==0.50.2 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch
from bitsandbytes import optim as theirs


def reached(make, **numbers):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = make([weight], lr=0.1, **numbers)
    for gradient in (1.0, 0.5, -0.25, 0.75):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return f"{weight[0].item():.3f}"


def pair(make, common, option):
    return f"{reached(make, **common)} {reached(make, **common, **option)}"


for name, common, option in (
    ("RMSprop", {}, {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9}, {"nesterov": True}),
    ("SGD", {"momentum": 0.9}, {"dampening": 0.5}),
):
    said = ", ".join(f"{key}={value}" for key, value in option.items())
    print(f"{name}, {said}: torch {pair(getattr(torch.optim, name), common, option)},", end=" ")
    print(f"bitsandbytes {pair(getattr(theirs, name), common, option)}")
print("LAMB, bias_correction=False: bitsandbytes", pair(theirs.LAMB, {}, {"bias_correction": False}))
for name, library in (("torch", torch.optim), ("bitsandbytes", theirs)):
    decay = {"weight_decay": 0.5}
    print(f"Adam and AdamW, weight_decay=0.5: {name} {reached(library.Adam, **decay)} {reached(library.AdamW, **decay)}")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" 2> "$folder/log" | tee "$folder/seen" || { cat "$folder/log"; exit 1; }
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
RMSprop, momentum=0.9: torch -0.782 -3.791, bitsandbytes -0.782 -0.782
SGD, nesterov=True: torch 0.493 0.344, bitsandbytes 0.493 0.493
SGD, dampening=0.5: torch 0.493 0.575, bitsandbytes 0.493 0.493
LAMB, bias_correction=False: bitsandbytes 0.909 0.909
Adam and AdamW, weight_decay=0.5: torch 0.638 0.521
Adam and AdamW, weight_decay=0.5: bitsandbytes 0.521 0.521
EXPECTED

#!/usr/bin/env bash
# transformers 5.24.0: Trainer decides by the names of attributes which weights decay; of classes it knows LayerNorm alone.
#
# Trainer means to leave biases and normalization out of weight decay. Apart from nn.LayerNorm it goes by patterns in names:
# the same RMSNorm decays as `scale` and does not as `norm`, a BatchNorm decays as `bn`, and a Linear whose name
# holds "bias" or "layernorm" loses its decay altogether, its weight included.
#
# Which weights of a model decay, asked of the optimizer that Trainer makes with weight_decay=0.1. Expected output:
#   decayed:     bn.weight, group.weight, scale.weight, head.weight
#   not decayed: ln.weight, norm.weight, debias.weight, after_layernorm.weight
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0 \
    2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import sys

from torch import nn
from transformers import Trainer, TrainingArguments

model = nn.ModuleDict(
    {
        "bn": nn.BatchNorm1d(4),
        "group": nn.GroupNorm(2, 4),
        "scale": nn.RMSNorm(4),
        "ln": nn.LayerNorm(4),
        "norm": nn.RMSNorm(4),
        "debias": nn.Linear(4, 4),
        "after_layernorm": nn.Linear(4, 4),
        "head": nn.Linear(4, 4),
    }
)
arguments = TrainingArguments(output_dir=sys.argv[1], weight_decay=0.1, use_cpu=True, report_to=[])
optimizer = Trainer(model=model, args=arguments).create_optimizer()
decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
for label, wanted in (("decayed:    ", 0.1), ("not decayed:", 0.0)):
    print(label, ", ".join(n for n, p in model.named_parameters() if n.endswith("weight") and decay[id(p)] == wanted))
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/seen.py" "$folder/out" 2> "$folder/log" | tee "$folder/seen" ||
    { cat "$folder/log"; exit 1; }
diff "$folder/seen" - <<'EXPECTED'
decayed:     bn.weight, group.weight, scale.weight, head.weight
not decayed: ln.weight, norm.weight, debias.weight, after_layernorm.weight
EXPECTED

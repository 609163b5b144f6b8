#!/usr/bin/env bash
# torch 2.13.0: torch.optim.SGD(fused=True) on the CPU does not update bfloat16 and float16 weights.
#
# Only what is left over after the last whole vector of the processor is updated: of 4096 weights none, of 4099 the last few.
# The momentum buffer does change, the loss stays where it was, and nothing is said. float32 weights are updated, and so
# are 16-bit weights by fused Adam, AdamW and Adagrad.
#
# One step with lr 0.5 from weights of 1 with gradients of 1: how many of 4096 weights have moved. Expected output:
#   SGD      float32 4096  bfloat16    0  float16    0
#   Adam     float32 4096  bfloat16 4096  float16 4096
#   Adagrad  float32 4096  bfloat16 4096  float16 4096
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch


def moved(name, dtype):
    weight = torch.nn.Parameter(torch.ones(4096, dtype=dtype))
    optimizer = getattr(torch.optim, name)([weight], lr=0.5, fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return (weight != 1).sum().item()


dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
for name in ("SGD", "Adam", "Adagrad"):
    print(f"{name:7}", *(f"{label} {moved(name, dtype):4}" for label, dtype in dtypes.items()), sep="  ")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
SGD      float32 4096  bfloat16    0  float16    0
Adam     float32 4096  bfloat16 4096  float16 4096
Adagrad  float32 4096  bfloat16 4096  float16 4096
EXPECTED

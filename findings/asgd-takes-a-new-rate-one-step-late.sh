#!/usr/bin/env bash
# torch 2.13.0: ASGD steps with the rate of the step before, so that a scheduler's change of lr acts one step late.
#
# torch.optim.ASGD keeps the rate of a step in the state `eta`, uses it, and only then computes the next one from the group's
# lr. What a scheduler writes before step t is therefore used at step t + 1: a warm-up that begins at 0 makes a full step
# at once if the optimizer was built with another rate, and a run that ends at lr 0 still makes its last step with the rate before.
#
# Four steps with gradient 1 and lr set to 1, 0.1, 0.01, 0 before them, beside SGD. Expected output, how far each step went:
#   SGD:  [1.0, 0.1, 0.01, 0.0]
#   ASGD: [1.0, 1.0, 0.1, 0.01]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch


def lengths(make):
    weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer, gone = make([weight]), []
    for lr in (1.0, 0.1, 0.01, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        gone.append(round(before - weight.item(), 6))
    return gone


print("SGD: ", lengths(lambda params: torch.optim.SGD(params, lr=1.0)))
print("ASGD:", lengths(lambda params: torch.optim.ASGD(params, lr=1.0, lambd=0.0)))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
SGD:  [1.0, 0.1, 0.01, 0.0]
ASGD: [1.0, 1.0, 0.1, 0.01]
EXPECTED

#!/usr/bin/env bash
# torch 2.13.0: a fused optimizer behind a wrapper that forwards attributes never has its gradients unscaled.
#
# GradScaler asks the object that it is given for `_step_supports_amp_scaling`. A wrapper with `__getattr__` answers for the
# fused optimizer in it, so the scaler leaves unscaling, and leaving out a step with infinities, to the optimizer. But it puts
# `grad_scale` and `found_inf` on the wrapper, where the fused step does not look. The loop implementation, behind the same
# wrapper, is unscaled by the scaler and right.
#
# One step of SGD with lr 1 from 0, gradient 1, loss scale 1024; then the same with an infinite gradient. Expected output:
#   loop:  weight -1.0, after an infinite gradient 0.0
#   fused: weight -1024.0, after an infinite gradient -inf
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch


class Forwarding:
    """Counts steps; everything else is the optimizer's."""

    def __init__(self, optimizer):
        self.optimizer, self.steps = optimizer, 0

    def __getattr__(self, name):
        return getattr(self.optimizer, name)

    def step(self):
        self.steps += 1
        return self.optimizer.step()


def stepped(gradient, fused):
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = Forwarding(torch.optim.SGD([weight], lr=1.0, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(weight * gradient).backward()
    scaler.step(optimizer)
    scaler.update()
    return weight.item()


for name, fused in (("loop: ", False), ("fused:", True)):
    print(f"{name} weight {stepped(1.0, fused)}, after an infinite gradient {stepped(float('inf'), fused)}")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
loop:  weight -1.0, after an infinite gradient 0.0
fused: weight -1024.0, after an infinite gradient -inf
EXPECTED

#!/usr/bin/env bash
# torch 2.13.0: a first step that GradScaler leaves out gives fused SGD momentum out of memory that nobody has written to.
#
# torch.optim.SGD(momentum=0.9, fused=True) leaves it to its kernel to skip a step whose gradients are infinite, makes the momentum
# buffer with torch.empty_like before, counting on the kernel to fill it, and keeps it afterwards. The kernel skips the
# step, and the step after it goes on from whatever the memory held. A scaler's first steps are those that overflow:
# it begins with a large scale to find one that fits. Plain SGD makes no buffer in a step that is left out.
#
# Shown with torch's own switch that fills new memory with NaN (torch.use_deterministic_algorithms): without it the
# buffer holds whatever was there before. Gradient 1 in each step, infinite in the first, lr 0.1.
# Expected output, the weight after each step and the buffer after the first:
#   plain: [1.0, 0.9, 0.71], buffer: None
#   fused: [1.0, nan, nan], buffer: nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import torch

torch.use_deterministic_algorithms(True)


def seen(fused):
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weights, buffers = [], []
    for factor in (float("inf"), 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(weight * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        weights.append(round(weight.item(), 6))
        buffer = optimizer.state[weight].get("momentum_buffer")
        buffers.append(None if buffer is None else buffer.item())
    return f"{weights}, buffer: {buffers[0]}"


print("plain:", seen(False))
print("fused:", seen(True))
PYTHON
"$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen.txt"
diff "$folder/seen.txt" - <<'EXPECTED' && echo "As expected."
plain: [1.0, 0.9, 0.71], buffer: None
fused: [1.0, nan, nan], buffer: nan
EXPECTED

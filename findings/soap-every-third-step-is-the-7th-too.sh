#!/usr/bin/env bash
# heavyball 3.2.1: SOAP with precondition_frequency=3 makes new bases at steps 3, 7, 9, 12, 16, 19 ..., and with 10 at 11, 20, 30.
#
# It adds 1/k at each step and makes new bases where the sum passes a whole number. The sum is of floating-point numbers: ten times a
# tenth is 0.999…, six times a third is 1.999…, and a refresh comes a step late, or not, as rounding has it. Only where 1/k
# is exact, such as every 2 or 4 steps, are they where they are asked for. A run that is compared with another SOAP step by step is
# apart from the first late refresh on.
#
# The steps, within 30, at which a basis is another than before, by frequency. Expected output:
#   every 10: [11, 20, 30]
#   every 3: [3, 7, 9, 12, 16, 19, 22, 25, 28, 30]
#   every 4: [4, 8, 12, 16, 20, 24, 28]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 heavyball==3.2.1 opt-einsum==3.4.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import heavyball
import torch

heavyball.utils.compile_mode = None


def bases(optimizer, weight):
    """Copies of the two bases, which heavyball keeps in a list."""
    [kept] = optimizer.state[weight].values()
    return [basis.clone() for name, found in kept.items() if "_Q" in name for basis in found]


def refreshed(frequency):
    noise = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = heavyball.SOAP([weight], precondition_frequency=frequency, merge_dims=False, compile_step=False)
    steps, before = [], None
    for step in range(1, 31):
        weight.grad = torch.randn(16, 16, generator=noise)
        optimizer.step()
        now = bases(optimizer, weight)
        if before is not None and not all(map(torch.equal, now, before)):
            steps.append(step)
        before = now
    return steps


for frequency in (10, 3, 4):
    print(f"every {frequency}:", refreshed(frequency))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
every 10: [11, 20, 30]
every 3: [3, 7, 9, 12, 16, 19, 22, 25, 28, 30]
every 4: [4, 8, 12, 16, 20, 24, 28]
EXPECTED

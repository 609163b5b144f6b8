#!/usr/bin/env bash
# transformers 5.24.0: where a callback calls trainer.log() after a step, the Trainer does not log the loss of that step.
#
# Whether a step is logged is a flag, which is set before callbacks are told of the end of the step and read after them. trainer.log tells callbacks that something was
# logged, and what tells them takes the flag back. So numbers of one's own, logged in on_step_end, stand in the place of loss, norm of gradients and learning rate. The
# loss is averaged into the next that is logged; of a callback that logs at every step, none is. Nothing is said.
#
# Expected output, of six steps that are all to be logged:
#   no callback                     losses of steps 1 2 3 4 5 6
#   one that logs after each second losses of steps 1 3 5
#   one that logs after each        losses of no step
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0 \
    2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import tempfile

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"loss": (self.weight * x).mean()}


class Logs(TrainerCallback):
    def __init__(self, every):
        self.every = every

    def on_step_end(self, args, state, control, **others):
        if state.global_step % self.every == 0:
            trainer.log({"a number of one's own": 1.0})


for name, callbacks in (
    ("no callback", []),
    ("one that logs after each second", [Logs(2)]),
    ("one that logs after each", [Logs(1)]),
):
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, max_steps=6, logging_steps=1, per_device_train_batch_size=2, report_to=[], save_strategy="no", use_cpu=True
        )
        trainer = Trainer(Mean(), arguments, train_dataset=[{"x": torch.ones(1)}] * 12, callbacks=callbacks)
        trainer.train()
    steps = [str(entry["step"]) for entry in trainer.state.log_history if "loss" in entry]
    print(f"{name:<31} losses of", f"steps {' '.join(steps)}" if steps else "no step", flush=True)
PYTHON
CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/seen.py" 2> "$folder/log" | grep "losses of" | tee "$folder/seen" || { cat "$folder/log"; exit 1; }
diff "$folder/seen" - <<'EXPECTED'
no callback                     losses of steps 1 2 3 4 5 6
one that logs after each second losses of steps 1 3 5
one that logs after each        losses of no step
EXPECTED

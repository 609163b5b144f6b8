#!/usr/bin/env bash
# optax 0.2.8: weights decay under adafactor while the learning rate is 0, and as fast as at any other rate.
#
# optax.adafactor adds weight_decay_rate·w after the learning rate has been multiplied in; adamw, lion, lamb and the others of
# the library add it before. The decay is therefore the same share of the weights at every step, through a warm-up that
# begins at 0 and a schedule that ends there. The 0.01 that is usual in adamw takes 1 % of the weights a step: 63 % in 100 steps.
#
# A weight of 1 after 100 steps of decay 0.01, at the rates 0, 0.001 and 0.01, gradients 0. Expected output:
#   adamw:     [1.0, 0.999, 0.99]
#   lion:      [1.0, 0.999, 0.99]
#   adafactor: [0.366, 0.366, 0.366]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 numpy==2.4.6 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

cat > "$folder/seen.py" <<'PYTHON'
import jax.numpy as jnp
import optax


def left(make):
    """What is left of the weight at each rate."""
    seen = []
    for rate in (0.0, 0.001, 0.01):
        optimizer, weight = make(optax.constant_schedule(rate)), jnp.ones(())
        state = optimizer.init(weight)
        for _ in range(100):
            update, state = optimizer.update(jnp.zeros(()), state, weight)
            weight = optax.apply_updates(weight, update)
        seen.append(round(float(weight), 3))
    return seen


print("adamw:    ", left(lambda rate: optax.adamw(rate, weight_decay=0.01)))
print("lion:     ", left(lambda rate: optax.lion(rate, weight_decay=0.01)))
print("adafactor:", left(lambda rate: optax.adafactor(rate, weight_decay_rate=0.01)))
PYTHON
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "As expected."
adamw:     [1.0, 0.999, 0.99]
lion:      [1.0, 0.999, 0.99]
adafactor: [0.366, 0.366, 0.366]
EXPECTED

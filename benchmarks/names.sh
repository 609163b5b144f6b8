#!/bin/sh
# What libraries do under one name, each line by a run of the library: names.py in a temporary environment. About three minutes.
#
#   benchmarks/names.sh                 every line
#   benchmarks/names.sh --rule lamb     a part of a line's rule or expression
#   benchmarks/names.sh --markdown      prints docs/names.md
#
# PYTHON=... chooses another Python than python3.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
"${PYTHON:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/pip install --quiet --disable-pip-version-check"
$pip --constraint "$here/constraints.txt" torch numpy llvmlite numba platformdirs rich typer typing_extensions transformers
$pip --constraint "$here/constraints.txt" optax==0.2.8 jax==0.10.2 keras==3.15.1
# without what they ask for besides torch: of timm its optimizers are imported, and no model
$pip --no-deps bitsandbytes==0.50.2 prodigyopt==1.1.2 pytorch_optimizer==4.1.0 schedulefree==1.4.1 timm==1.0.31 torch-optimi==0.3.3
PYTHONPATH=$here OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$here/benchmarks/names.py" "$@"

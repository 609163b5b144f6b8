#!/bin/sh
# Whether neon's rules step as the packages that have them: agreement.py in a temporary environment. About two minutes.
#
#   benchmarks/agreement.sh                      every rule
#   benchmarks/agreement.sh --rule prodigy       a part of a rule's name; --of reference: not neon but tests/reference.py
#   benchmarks/agreement.sh --speed [OPTIONS]    what a step takes beside the packages: rule_speed.py
#
# PYTHON=... chooses another Python than python3.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
script=agreement.py
if [ "${1:-}" = --speed ]; then script=rule_speed.py; shift; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
"${PYTHON:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/pip install --quiet --disable-pip-version-check"
$pip --constraint "$here/constraints.txt" torch numpy llvmlite numba platformdirs rich typer typing_extensions
# without what they ask for besides torch: of timm one file is imported, and no model
$pip --no-deps prodigyopt==1.1.2 schedulefree==1.4.1 timm==1.0.31 torch-optimi==0.3.3
$pip --no-deps pytorch_optimizer==4.1.0 adabelief-pytorch==0.2.1 heavyball==3.2.1 opt-einsum==3.4.0 tabulate==0.9.0 \
    colorama==0.4.6 packaging==26.0 muon-optimizer==0.1.0
# dion is in no registry: without a way to its repository its rows are left out
$pip --no-deps "git+https://github.com/microsoft/dion@0a059a4542e5aa74b40dcd1dce363836c7afcd48" || echo "Without dion: it could not be fetched."
PYTHONPATH=$here OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$folder/venv/bin/python" "$here/benchmarks/$script" "$@"

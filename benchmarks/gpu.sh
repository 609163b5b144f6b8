#!/bin/sh
# neon on this machine's GPU: its tests, and what a step takes beside torch's. About eight minutes.
#
#   benchmarks/gpu.sh OUT                  results into the folder OUT: gpu.jsonl, table.md, tests.txt and others
#   benchmarks/gpu.sh --rehearse OUT       the same on the processor, by Triton's interpreter: two minutes
#   benchmarks/gpu.sh --seconds 200 OUT    less time; --cases 'AdamW.*gpt2': what fits a regular expression
#   benchmarks/gpu.sh --wheels DIR OUT     packages that are missing come from wheels in DIR (default: the checkout's .whl)
#
# PYTHON=... chooses another Python than python3. Torch, Triton, a C compiler and Python.h have to be there.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=$here/.whl seconds= cases= rehearse= out=
usage() {
    echo "$1" >&2
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in --seconds | --cases | --wheels) [ $# -gt 1 ] || usage "$1 needs a value" ;; esac
    case $1 in
    --rehearse) rehearse=--rehearse; export PYTHONWARNINGS=ignore::RuntimeWarning ;; # numpy's, of lanes that are masked
    --seconds) seconds=$2; shift ;;
    --cases) cases=$2; shift ;;
    --wheels) wheels=$(cd "$2" && pwd) || exit 2; shift ;;
    -*) usage "There is no option $1" ;;
    *) [ -z "$out" ] || usage "There can be one OUT: $out or $1"; out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || usage "Say where the results are to go: OUT"
seconds=${seconds:-$([ -n "$rehearse" ] && echo 120 || echo 440)}
case $seconds in *[!0-9]*) usage "--seconds needs a whole number, not $seconds" ;; esac
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
rm -f "$out/gpu.jsonl"  # an earlier run's: after a process that fails early another would go on from it
until=$(($(date +%s) + seconds))

kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
trap 'exit 130' INT TERM
export PYTHONPATH="$here" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export NEON_CACHE_DIR="$kept/neon" TRITON_CACHE_DIR="$kept/triton"
unset TRITON_INTERPRET

missing=$("$python" - <<'END'
from importlib.util import find_spec
names = "numpy numba llvmlite rich typer platformdirs typing_extensions pytest torch triton".split()
print(*(name for name in names if find_spec(name) is None))
END
) || { echo "$python does not run: set PYTHON" >&2; exit 2; }
if [ -n "$missing" ]; then
    echo "Missing in $python: $missing"
    if ls "$wheels"/*.whl >/dev/null 2>&1; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$kept/packages" "$wheels"/*.whl
        export PYTHONPATH="$here:$kept/packages"
    fi
    "$python" -c 'import torch, triton' || { echo "Torch and Triton have to be there: set PYTHON, or --wheels." >&2; exit 2; }
fi
(command -v nvidia-smi >/dev/null && nvidia-smi) >"$out/nvidia-smi.txt" 2>&1

# A process to which the device is lost, or that was ended in a case that hung, is followed by another that goes on.
resume=
for try in 1 2 3 4 5 6; do
    "$python" "$here/benchmarks/gpu.py" "$out" --until "$until" --cases "$cases" $rehearse $resume
    status=$?
    [ $status -ne 0 ] && [ -s "$out/gpu.jsonl" ] && [ "$(date +%s)" -lt "$until" ] || break
    echo "The process ended with status $status; another goes on."
    resume=--resume
done 2>&1 | tee "$out/log.txt"
tail -n 1 "$out/log.txt" | grep -q '^Left out'

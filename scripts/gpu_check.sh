#!/usr/bin/env bash
# ./scripts/gpu_check.sh [--wheels DIR] [BENCH ARGUMENTS]
#
# What can only be checked on a GPU, in one command on a machine that has CUDA, Python 3.11 or later, torch and transformers,
# and no network: makes .venv-gpu on top of that Python's packages, installs the wheels that scripts/gather_wheels.sh
# gathered (DIR, by default wheels/) where they are missing, runs the tests marked `gpu`, then scripts/bench_gpu.py with the
# rest of the arguments. What they print is also in benchmarks/. Without CUDA the tests are skipped and the bench says so.
#
#   PYTHON=/opt/torch/bin/python3 ./scripts/gpu_check.sh                 another Python than the python3 on PATH
#   ./scripts/gpu_check.sh --hfpipe train.batching.bucket=true           hfpipe's engines with these overrides
#   ./scripts/gpu_check.sh --tiny --device cpu                           a try on a machine without a GPU
set -eu

case ${1:-} in
    -h | --help) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
esac
cd "$(dirname "$0")/.."
wheels=wheels
if [ "${1:-}" = --wheels ]; then
    wheels=${2:?--wheels wants a folder}
    shift 2
fi
python=${PYTHON:-python3}
venv=${HFPIPE_VENV:-$PWD/.venv-gpu}
say() { printf 'gpu_check: %s\n' "$*" >&2; }

"$python" -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || { say "$python is not Python 3.11 or later."; exit 5; }
for package in torch transformers; do
    "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$package') is None)" ||
        { say "$package is not installed in $python; this script brings neither torch nor transformers."; exit 5; }
done

# Made anew each time, which takes a second; pip is the one of the Python below.
"$python" -m venv --clear --without-pip --system-site-packages "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# A Python that is itself an environment passes on its base's packages only, so its own are named; and hfpipe is the
# checkout, by its path, for which no build tool is needed. The second line is for the folders that a .pth of those names.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/beneath.pth"
echo "import site; site.addsitedir('$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" >>"$site/beneath.pth"
echo "$PWD" >"$site/hfpipe-checkout.pth"

if [ -d "$wheels" ]; then
    # Only what is missing, so that nothing takes the place of what torch and transformers were tested with there.
    missing=$("$venv/bin/python" - "$wheels" <<'PYTHON'
import re, sys
from importlib import metadata
from pathlib import Path

installed = {re.sub(r"[-_.]+", "-", one.metadata["Name"] or "").lower() for one in metadata.distributions()}
wheels = {re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower(): wheel for wheel in sorted(Path(sys.argv[1]).glob("*.whl"))}
needed = {name for name in wheels if name not in installed}
if needed & {"pydantic", "pydantic-core"}:
    needed |= {"pydantic", "pydantic-core"} & wheels.keys()  # these two fit each other only in pairs
print(*(wheels[name] for name in sorted(needed)), sep="\n")
PYTHON
    )
    if [ -n "$missing" ]; then
        printf '%s\n' "$missing" | xargs "$python" -m pip --python "$venv/bin/python" install -q --no-index --no-deps \
            --no-compile --disable-pip-version-check
        say "installed $(printf '%s\n' "$missing" | wc -l) wheels of $wheels."
    else
        say "of the wheels in $wheels none was missing."
    fi
else
    say "there is no folder $wheels of wheels (scripts/gather_wheels.sh makes one); going on with what is installed."
fi
lacking=$("$venv/bin/python" -c '
import importlib.util
names = "accelerate datasets evaluate jinja2 matplotlib pyarrow pydantic pytest rich ruamel.yaml sklearn scipy simpleeval typer hfpipe"
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(*[name for name in names.split() if not there(name)])')
if [ -n "$lacking" ]; then
    say "not installed: $lacking. Gather their wheels where there is a network: scripts/gather_wheels.sh DIR [--all]."
    exit 5
fi

mkdir -p benchmarks
failed=
# Warnings are no errors here: other releases of the libraries warn of other things.
HF_HUB_OFFLINE=1 "$venv/bin/python" -m pytest -m gpu -rs -q -p no:cacheprovider -o filterwarnings=default tests/gpu 2>&1 |
    tee benchmarks/gpu-tests.txt
[ "${PIPESTATUS[0]}" -eq 0 ] || failed="$failed tests"
HF_HUB_OFFLINE=1 "$venv/bin/python" scripts/bench_gpu.py --output benchmarks/gpu "$@" 2>&1 | tee benchmarks/gpu.txt
[ "${PIPESTATUS[0]}" -eq 0 ] || failed="$failed bench"
if [ -n "$failed" ]; then
    say "failed:$failed. What was printed is in benchmarks/."
    exit 1
fi
say "done; what was printed is in benchmarks/."

#!/usr/bin/env bash
# ./scripts/gather_wheels.sh DIR [--all]
#
# Gathers, where there is a package registry, the wheels that scripts/gpu_check.sh installs on a machine without one:
# what hfpipe needs beside torch and transformers, for Python 3.12 on Linux x86-64, in the versions of constraints.txt.
# --all adds the large ones that come with most installations of torch (numpy, scipy, scikit-learn, pandas, pyarrow,
# matplotlib). Nothing of torch, transformers or NVIDIA is fetched. DIR may be wheels/, which git ignores.
#
#   HFPIPE_WHEELS_MB=60 ./scripts/gather_wheels.sh wheels   fail when more than so many MB were gathered (60; --all 250)
set -eu

case ${1:-} in
    '' | -*) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
esac
into=$1
most_mb=${HFPIPE_WHEELS_MB:-60}
root=$(cd "$(dirname "$0")/.." && pwd -P)
names="accelerate datasets dill evaluate multiprocess xxhash pydantic pydantic_core annotated-types typing-inspection
    typing_extensions ruamel.yaml simpleeval typer rich shellingham annotated-doc click markdown-it-py mdurl Pygments
    Jinja2 MarkupSafe psutil requests urllib3 charset-normalizer idna certifi pytest iniconfig pluggy packaging"
if [ "${2:-}" = --all ]; then
    most_mb=${HFPIPE_WHEELS_MB:-250}
    names="$names numpy scipy scikit-learn joblib threadpoolctl narwhals pandas python-dateutil six pyarrow fsspec
    matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing"
elif [ -n "${2:-}" ]; then
    echo "gather_wheels: unknown argument $2; allowed: --all." >&2
    exit 2
fi

mkdir -p "$into"
# --no-deps: the dependencies of accelerate would bring torch, and with it gigabytes; the list above is what is left.
# shellcheck disable=SC2086
"${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 -c "$root/constraints.txt" -d "$into" $names

size_mb=$(du -sm "$into" | cut -f1)
echo "gather_wheels: $(find "$into" -name '*.whl' | wc -l) wheels, $size_mb MB, in $into." >&2
if [ "$size_mb" -gt "$most_mb" ]; then
    echo "gather_wheels: more than $most_mb MB. Empty $into first, or set HFPIPE_WHEELS_MB." >&2
    exit 5
fi

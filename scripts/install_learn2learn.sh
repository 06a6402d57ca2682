#!/bin/sh
# Install learn2learn 0.2.0, to compare with, into the environment of a Python 3.11 or newer that has torch:
#
#     sh scripts/install_learn2learn.sh [PYTHON]      (default: python3)
#
# The C files in its source package no longer compile there; with `build_ext` among the arguments of the build, its
# setup.py has Cython write them anew. What it declares to need is left out: of all that, gym, requests and tqdm are
# what it misses when it is imported beside torch, torchvision and scipy.
set -eu

python=${1:-python3}
compiler=${CC:-cc}

fail() {
    echo "error: $1" >&2
    exit 2
}

command -v "$python" >/dev/null || fail "there is no $python; give the path of a Python"
"$python" -c 'import torch, torchvision, scipy' 2>/dev/null || fail "$python lacks torch, torchvision or scipy"
command -v "${compiler%% *}" >/dev/null || fail "learn2learn needs a C compiler, and there is no $compiler; install gcc"

"$python" -m pip install --quiet setuptools wheel cython numpy gym requests tqdm
"$python" -m pip install --quiet --no-deps --no-build-isolation --use-pep517 \
    --config-settings=--global-option=build_ext learn2learn==0.2.0
"$python" -c 'import learn2learn; print("learn2learn", learn2learn.__version__)'

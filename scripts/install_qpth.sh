#!/bin/sh
# Install qpth 0.0.18, for the head `svm:solver=qpth`, into the environment of a Python that has torch:
#
#     sh scripts/install_qpth.sh [PYTHON]      (default: python3)
#
# It declares numpy<2, which it does not need: its solver calls torch alone, and it imports cvxpy without calling it.
# So cvxpy is installed first, beside the NumPy that is there, and qpth without what it declares. No compiler is needed.
# Tried on Linux, with the gradient and against cvxpy's solution: Python 3.10 (torch 2.14, NumPy 2.2), 3.11 (torch 2.15,
# NumPy 2.4), 3.12 and 3.13 (torch 2.15, NumPy 2.5). By itself, pip would take NumPy back to 1.26, which it can on
# Python 3.10 to 3.12 only.
set -eu

python=${1:-python3}

fail() {
    echo "error: $1" >&2
    exit 2
}

command -v "$python" >/dev/null || fail "there is no $python; give the path of a Python"
"$python" -c 'import torch' 2>/dev/null || fail "$python lacks torch"

"$python" -m pip install --quiet cvxpy
"$python" -m pip install --quiet --no-deps --use-pep517 qpth==0.0.18
"$python" -c '
import torch
from qpth.qp import QPFunction

identity = torch.eye(2, dtype=torch.float64)  # the nearest point to (3, 1) within the square [-2, 2] x [-2, 2]
nearest = QPFunction(verbose=-1)(
    identity, -torch.tensor([[3.0, 1.0]]).double(), torch.cat([identity, -identity]), torch.full((4,), 2.0).double(),
    torch.empty(0).double(), torch.empty(0).double(),
)
assert torch.allclose(nearest, torch.tensor([[2.0, 1.0]]).double(), atol=1e-6), nearest
print("qpth 0.0.18 solves")
'

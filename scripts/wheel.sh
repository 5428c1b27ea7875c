#!/usr/bin/env bash
# Builds a wheel, audits it (dist/ gets the manylinux one, whose tag states the oldest glibc), and tries it in a clean
# virtual environment that has torch but no compiler on its PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$PWD/.venv/bin

rm -rf build/wheelhouse build/wheel-try && mkdir -p build/wheelhouse dist
$BIN/uv build --quiet --wheel --no-build-isolation --python $BIN/python --no-cache --out-dir build/wheelhouse .
PATH=$BIN:$PATH $BIN/auditwheel repair --plat auto --exclude 'libtorch*' --exclude 'libc10*' -w dist build/wheelhouse/octavo-*.whl
wheel=$(ls -t dist/octavo-*.whl | head -1)

python3 -m venv build/wheel-try
# torch and the other packages come from .venv by a path file instead of another download of gigabytes.
site=$(build/wheel-try/bin/python -c 'import site; print(site.getsitepackages()[0])')
build/wheel-try/bin/python -m pip install --quiet --no-cache-dir --no-deps "$wheel"
$BIN/python -c 'import site; print(site.getsitepackages()[0])' > "$site/octavo-try.pth"
env -i PATH="$PWD/build/wheel-try/bin" HOME="$PWD/build/wheel-try" PYTHONPATH= build/wheel-try/bin/python - <<'EOF'
import pathlib, sysconfig
import torch, octavo
assert str(pathlib.Path(octavo.__file__)).startswith(sysconfig.get_path("purelib")), octavo.__file__
q, scale = octavo.quantize_weight_per_channel(torch.randn(64, 96))
assert octavo.int8_gemm(torch.randn(2, 96), q, scale).shape == (2, 64)
EOF
env -i PATH="$PWD/build/wheel-try/bin" octavo version
echo "wheel: $wheel works"

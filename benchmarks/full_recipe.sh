#!/usr/bin/env bash
# The published recipe, all four folds, on an accelerator; can be stopped and called again.
#
#   benchmarks/full_recipe.sh OUT CURATED_BUSI.npz [BUS_UCLM.npz] [-- overrides for main.py]
#
# CURATED_BUSI.npz and BUS_UCLM.npz are files of `python -m mtbus_jax.pack` at 128×128, so that the
# machine needs neither the datasets nor tensorflow-datasets. Each stage leaves its results in OUT
# before the next begins: device and versions, a correctness check on this device, Curated BUSI,
# BUS-UCLM.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -lt 2 ]; then
  sed -n '2,10p' "$0" >&2
  exit 2
fi
out=$1
shift
packed=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  packed+=("$1")
  shift
done
[ $# -gt 0 ] && shift
mkdir -p "$out"

echo "== device"
python3 - <<'PY' | tee "$out/device.txt"
import jax

for device in jax.devices():
    print(device.platform, device.device_kind)
print("jax", jax.__version__)
PY

echo "== correctness on this device"
# With all bits of float32, which a GPU would cut, and optimised as in training.
JAX_DEFAULT_MATMUL_PRECISION=highest JAX_DISABLE_MOST_OPTIMIZATIONS=0 \
  python3 -m pytest -q -p no:cacheprovider tests/training/test_steps.py tests/models/test_registry.py \
  2>&1 | tee "$out/correctness.txt" || echo "(see $out/correctness.txt)"

configs=(mt_unetpp mt_unetpp_bus_uclm)
for i in "${!packed[@]}"; do
  config=${configs[$i]}
  echo "== $config"
  start=$(date +%s)
  python3 main.py --config="configs/$config.py" --workdir="$out/$config" \
    --config.data.arrays_file="${packed[$i]}" --config.log.tensorboard=False "$@" \
    2>&1 | tee -a "$out/$config.log"
  echo "$(($(date +%s) - start)) s" | tee -a "$out/$config.seconds.txt"
done

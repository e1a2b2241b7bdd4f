#!/usr/bin/env bash
# gpu.sh: everything about CUDA and NCCL that a machine with a GPU can tell, unattended, from a built tree (make build).
#
# Compares a step with PyTorch's and writes bench/results/gpu.json; then trains on all devices with NCCL, compares the
# replicas' hashes after every step, kills one worker, and verifies the ledger. Exit code 0: all of it held; 75: no GPU.
# HGAT_GPU_DRY=1 does the same on the CPU at toy sizes, to test this script.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exports=$(setup/env) && eval "$exports" || exit 64
bin=${CARGO_TARGET_DIR:-target}/release
dry=${HGAT_GPU_DRY:-}
if [ -n "$dry" ]; then
    devices=2 device=cpu size=64 backbone=resnet18
else
    devices=$(nvidia-smi -L 2>/dev/null | wc -l) device=cuda size=224 backbone=resnet50
fi
if [ "$devices" -eq 0 ]; then
    echo "gpu.sh: no CUDA device here (nvidia-smi -L lists none)" >&2
    exit 75
fi
work=$(mktemp -d) || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
failed=0
check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "held: $what"
    else
        echo "FAILED: $what"
        tail -n 20 "$work/out"
        failed=1
    fi
}

check "a step beside PyTorch's (bench/results/gpu.json)" "$HGAT_PYTHON" bench/run gpu

"$bin/worker" scenes --to "$work/data" --train 960 --val 64 --seed 1 >/dev/null || exit 1
start=("$bin/coordinator" start --workers "$devices" --data "$work/data" --run-dir "$work/run" --quiet
    --set "run.device=$device" --set "model.backbone=$backbone" --set "data.size=$size" --set train.epochs=2
    --set "train.micro_batch=8" --set "train.global_batch=$((8 * devices))" --set fault.sentinel_steps=1
    --set train.precision=bf16)
if [ -n "$dry" ]; then start+=(--set train.threads=1 --stop-after 30); fi
"${start[@]}" >"$work/log" 2>&1 &
run=$!
# A worker dies once steps are being committed. With one device there is nobody left to go on but its replacement.
progress() { grep -c '"event":"progress"' "$work/run/events.jsonl" 2>/dev/null || true; }
for _ in $(seq 1200); do
    [ "$(progress)" -ge $((5 * devices)) ] 2>/dev/null && break
    kill -0 "$run" 2>/dev/null || break
    sleep 0.1
done
victim=$("$HGAT_PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["worker-0"]["pid"])' "$work/run/workers.json")
check "a worker was there to be killed" kill -9 "$victim"
wait "$run"
code=$?
check "the run went on to its end (exit code $code, log below if not)" bash -c "[ $code -eq 0 ] || { cat '$work/log'; exit 1; }"
check "every sample once, plan and digests agree" "$bin/coordinator" ledger --verify --run-dir "$work/run"
check "a generation after the kill" bash -c "grep -q '\"generation\":2' '$work/run/events.jsonl'"
check "all replicas equal after every step" "$HGAT_PYTHON" - "$work/run/events.jsonl" "$devices" <<'PYTHON'
import collections, json, sys
hashes = collections.defaultdict(list)
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event.get("event") == "progress":
        hashes[event["generation"], event["report"]["step"]].append(event["report"]["state_hash"])
whole = [seen for seen in hashes.values() if len(seen) == int(sys.argv[2])]
differing = [step for step, seen in hashes.items() if len(set(seen)) > 1]
print(f"{len(whole)} steps with a hash of every rank, {len(differing)} in which they differ: {differing[:5]}")
sys.exit(not whole or bool(differing))
PYTHON
check "the decisions can be made again" "$bin/coordinator" replay "$work/run/events.jsonl"
exit "$failed"

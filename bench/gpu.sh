#!/usr/bin/env bash
# gpu.sh: everything about CUDA and NCCL that a machine with a GPU can tell, unattended, from a built tree (make build;
# make setup-tests; cargo test --release --locked --package nccl-rs --no-run in a shell with make env's exports).
#
# Sums known numbers over all devices; trains on all of them with NCCL, compares the replicas' hashes after every step,
# kills one worker, and verifies the ledger; then compares a step with PyTorch's and writes bench/results/gpu.json.
# Exit code 0: all of it held and the speeds aimed at were reached; 2: all held, but a speed was missed or could not be
# measured; 1: something did not hold; 64: not set up; 75: no GPU; 124: nothing failed that was reached, but not all was
# within HGAT_GPU_SECONDS (480). HGAT_GPU_DRY=1 does the same on the CPU at toy sizes, to test this script.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exports=$(setup/env) && eval "$exports" || exit 64
bin=${CARGO_TARGET_DIR:-target}/release
dry=${HGAT_GPU_DRY:-}
if ! "$HGAT_PYTHON" -c 'import torchvision' 2>/dev/null; then
    echo "gpu.sh: PyTorch's side needs torchvision: run make setup-tests" >&2
    exit 64
fi
if [ -n "$dry" ]; then
    devices=2 device=cpu size=64 backbone=resnet18
else
    devices=$("$HGAT_PYTHON" -c 'import torch; print(torch.cuda.device_count())') device=cuda size=224 backbone=resnet50
fi
if [ "${devices:-0}" -eq 0 ]; then
    echo "gpu.sh: no CUDA device here that torch may use" >&2
    exit 75
fi
work=$(mktemp -d) || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
# So that what is stopped half-way leaves nothing behind.
export TMPDIR=$work
limit=${HGAT_GPU_SECONDS:-480}
failed=0 late=0
left() { # left [MOST]: the seconds that there still are, of a stage with a limit of its own not more than that
    local seconds=$((limit - SECONDS))
    local most=${1:-$seconds}
    echo $((seconds < most ? seconds : most))
}
out_of_time() { # out_of_time WHAT [OUTPUT]
    echo "OUT OF TIME after $SECONDS s: $1"
    [ -z "${2:-}" ] || tail -n 20 "$2"
    late=1
}
check() { # check WHAT COMMAND...
    local what=$1 code
    shift
    # To `timeout` 0 is no limit at all.
    if [ "$(left)" -le 0 ]; then
        out_of_time "$what"
        return
    fi
    # All that the command has started is told to end, and killed if it does not (137).
    timeout --kill-after=10 "$(left)" "$@" >"$work/out" 2>&1
    code=$?
    if [ "$code" -eq 0 ]; then
        echo "held: $what"
    elif { [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; } && [ "$(left)" -le 0 ]; then
        out_of_time "$what" "$work/out"
    else
        echo "FAILED: $what"
        tail -n 20 "$work/out"
        failed=1
    fi
}

# By the NCCL that our workers load too, but through PyTorch: where this fails, what follows is not our code's fault.
sums=("$HGAT_PYTHON" -m torch.distributed.run --nproc-per-node "$devices" --standalone bench/peers/peer_sum.py)
check "all-reduces of known numbers give exact sums, by PyTorch's process group" "${sums[@]}" --device "$device"
# By our own group. Built with the tests; where they are not there yet, cargo builds them now, within the limit.
# A test that finds no NCCL passes over, which is no success here.
ours() {
    cargo test --release --locked --package nccl-rs --test "$1" -- --nocapture 2>&1 | tee "$work/sums" || return
    ! grep -q 'skipped: ' "$work/sums"
}
export -f ours && export work
check "all-reduces of known numbers give exact sums, by our process group" \
    bash -o pipefail -c "ours $([ -n "$dry" ] && echo collectives || echo nccl)"
if [ "$devices" -eq 1 ]; then
    echo "one device: there is no other rank to sum with and to be equal to; these checks say little here"
fi

check "pictures to train on" "$bin/worker" scenes --to "$work/data" --train 960 --val 64 --seed 1
start=("$bin/coordinator" start --workers "$devices" --data "$work/data" --run-dir "$work/run" --quiet
    --set "run.device=$device" --set "model.backbone=$backbone" --set "data.size=$size"
    --set "train.epochs=$((2 * devices))" --set "run.evaluate_every_epochs=$devices"
    --set "train.micro_batch=8" --set "train.global_batch=$((8 * devices))" --set fault.sentinel_steps=1
    --set train.precision=bf16)
if [ -n "$dry" ]; then start+=(--set train.threads=1 --stop-after 30); fi
# At most half of the time, so that a run that hangs leaves some to what comes after it; at least one second, see above.
most=$(left $((limit / 2)))
most=$((most > 0 ? most : 1)) until=$((SECONDS + most))
timeout --kill-after=10 "$most" "${start[@]}" >"$work/log" 2>&1 &
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
ended="the run went on to its end (exit code $code, log below if not)"
if { [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; } && [ "$SECONDS" -ge "$until" ]; then
    out_of_time "$ended" "$work/log"
else
    check "$ended" bash -c "[ $code -eq 0 ] || { cat '$work/log'; exit 1; }"
fi
check "every sample once, plan and digests agree" "$bin/coordinator" ledger --verify --run-dir "$work/run"
check "a generation after the kill" bash -c "grep -q '\"generation\":2' '$work/run/events.jsonl'"
check "all replicas equal after every step, before the kill and after it" "$HGAT_PYTHON" - "$work/run/events.jsonl" "$devices" <<'PYTHON'
import collections, json, sys
ranks, hashes, reporters = int(sys.argv[2]), collections.defaultdict(list), collections.defaultdict(set)
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event.get("event") == "progress":
        hashes[event["generation"], event["report"]["step"]].append(event["report"].get("state_hash"))
        reporters[event["generation"]].add(event["worker"])
differing = [step for step, seen in hashes.items() if len(set(seen)) > 1]
without = [step for step, seen in hashes.items() if not all(seen)]
# In a generation's last step a rank may have died before it reported.
whole = collections.Counter(of for (of, _), seen in hashes.items() if len(seen) == len(reporters[of]) > 1)
print(f"steps with a hash of every rank, by generation: {dict(whole)}; {len(differing)} in which they differ: "
      f"{differing[:5]}; {len(without)} without a hash: {without[:5]}")
compared = ranks == 1 or (whole[1] and any(of > 1 for of in whole))
sys.exit(bool(differing or without or not compared))
PYTHON
check "the decisions can be made again" "$bin/coordinator" replay "$work/run/events.jsonl"
# What an earlier run has left is no result of this one.
rm -f "bench/results/gpu${dry:+_dry}.json"
export HGAT_GPU_UNTIL=$(($(date +%s) + $(left)))
check "a step beside PyTorch's (bench/results/gpu.json)" "$HGAT_PYTHON" bench/run gpu
missed=0
if [ -z "$dry" ] && [ "$failed$late" = 00 ]; then
    "$HGAT_PYTHON" - <<'PYTHON' || missed=1
import json
missed = False
record = json.load(open("bench/results/gpu.json"))
for peer, ratio, target in (
    ("eager", record["ratio"], 1.2),
    ("torch.compile", record["details"]["peer, compiled"].get("ratio"), 1.0),
):
    reached = ratio is not None and ratio >= target
    missed |= not reached
    said = "not measured" if ratio is None else f"{ratio:.2f} times, {'reached' if reached else 'MISSED'}"
    print(f"target of {target} times PyTorch ({peer}): {said}")
raise SystemExit(missed)
PYTHON
fi
echo "took $SECONDS s of at most $limit"
[ "$failed" -eq 0 ] || exit 1
[ "$late" -eq 0 ] || exit 124
[ "$missed" -eq 0 ] || exit 2

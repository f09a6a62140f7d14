#!/usr/bin/env bash
# Everything to be seen on a machine with an NVIDIA GPU. Needs the stripped binary of `cargo build --release --features
# cuda` and nothing else; where python3 has torch and timm, step times are compared with PyTorch's.
#
# usage: benches/gpu.sh [BINARY]        target/release/harvest
#   OUT      folder for gpu.log, gpu.jsonl and gpu.md            benches/results
#   DEVICE   cuda:N                                              cuda:0
#   PYTHON   python3
#   KERNELS  tests of the kernels, see below                      harvest-kernels-tests beside BINARY
#   PARTS    of: kernels doctor demo parity step profile nccl algorithms  all of them
#   BUCKETS  of the part nccl: MODEL:BATCH                        see below
#   MODELS   of the step: MODEL:BATCH, or MODEL:BATCH:URATIO     see below
#   COMPILE  also compare with torch.compile in bf16             yes
#   PROFILED of the profile: MODEL:BATCH                         see below
#   PEAK     10¹² operations a second of the GPU, dense bf16     by its name, where known
#   LIMIT    seconds a single command may take                   300
#   STEPS    measured steps                                      20
#
# The part kernels holds every kernel to its reference, first, for nothing else means anything if they are wrong. Its program
# needs no compiler on the machine with the GPU; where there is one:
#   cargo test --release --locked -p harvest-kernels --lib --features cuda --no-run
# names it ("Executable ... (target/release/deps/harvest_kernels-...)"); copy it to what KERNELS says.
#
# A part that fails does not end the script; the table at the end has the result of each, and the exit code is 1 if one
# failed. Writes three files, so that they can be carried away from a machine that keeps nothing.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
DEVICE=${DEVICE:-cuda:0}
PYTHON=${PYTHON:-python3}
PARTS=${PARTS:-kernels doctor demo parity step profile nccl algorithms}
LIMIT=${LIMIT:-300}
STEPS=${STEPS:-20}
BUCKETS=${BUCKETS:-vit_tiny_patch2_32:64 vit_small_patch2_32:64 resnet50_32:64}
MODELS=${MODELS:-vit_tiny_patch2_32:8 vit_tiny_patch2_32:64 vit_small_patch2_32:64 vit_base_patch16_96:64 vit_base_patch16_224:32 resnet50_32:64 resnet50:32}
COMPILE=${COMPILE:-yes}
PROFILED=${PROFILED:-vit_small_patch2_32:64 vit_base_patch16_224:32 resnet50:32}
harvest=$(realpath "${1:-$here/../target/release/harvest}")
[[ -x $harvest ]] || {
    echo "there is no program $harvest; build it with: cargo build --release --features cuda" >&2
    exit 2
}
KERNELS=${KERNELS:-$(dirname "$harvest")/harvest-kernels-tests}
mkdir -p "$OUT" && OUT=$(realpath "$OUT") || exit 2
log=$OUT/gpu.log lines=$OUT/gpu.jsonl table=$OUT/gpu.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$log" && : >"$lines" || exit 2
results=()
failed=0

say() { printf '%s\n' "$*" | tee -a "$log"; }

# part NAME COMMAND...: runs it with a time limit, keeps what it prints, notes the result. Its output is in $work/output.
part() {
    local name=$1 start code
    shift
    start=$(now)
    say "" "=== $name" "\$ ${*}"
    (cd "$work" && timeout --kill-after=10 "$LIMIT" "$@") >"$work/output" 2>"$work/errors" </dev/null
    code=$?
    # Of a long list of complaints the end says most.
    { cat "$work/output"; tail -n 60 "$work/errors"; } | tee -a "$log"
    local seconds words=ok
    seconds=$(since "$start")
    case $code in
        0) ;;
        124 | 137) words="stopped after $LIMIT s" ;;
        *) words="failed ($code): $(tail -n 1 "$work/errors" | cut -c1-160 | tr '|' '/')" ;;
    esac
    ((code == 0)) || failed=1
    results+=("| $name | $words | $seconds |")
    return $code
}
wanted() { [[ " $PARTS " == *" $1 "* ]]; }

say "$(date --iso-8601=seconds)"
say "$(what_machine)"
say "$0 $harvest, DEVICE=$DEVICE PARTS=$PARTS"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | sed -n 1,4p)
gpu=${gpu:-unknown, nvidia-smi does not answer}
say "GPU: $gpu"
# Of data sheets, without sparsity.
case $gpu in
    *H100* | *H200*) peak=989 ;;
    *A100*) peak=312 ;;
    *L40S*) peak=362 ;;
    *A10*) peak=125 ;;
    *) peak= ;;
esac
peak=${PEAK:-$peak}
say "$("$harvest" --version 2>&1)"

if wanted kernels; then
    if [[ -x $KERNELS ]]; then
        # One at a time: a failure is then that kernel's own.
        part kernels env HARVEST_GPU="$DEVICE" "$(realpath "$KERNELS")" --test-threads 1 gpu::
    else
        say "" "kernels: there is no program $KERNELS"
        results+=("| kernels | not run: no program $KERNELS | – |")
    fi
fi
! wanted doctor || part doctor "$harvest" doctor
# The first use of a GPU compiles kernels; that is part of what a user waits for.
! wanted demo || part demo "$harvest" demo --device "$DEVICE" --out "$work/demo"
if wanted parity; then
    for precision in f32 bf16; do
        part "parity, $precision" "$harvest" bench parity --device "$DEVICE" --precision $precision
    done
fi

rows=()
if wanted step; then
    peer=yes
    "$PYTHON" -c 'import torch, timm, torchvision; assert torch.cuda.is_available(), "torch sees no GPU"; print("PyTorch", torch.__version__)' \
        >"$work/peer.txt" 2>&1 || peer=no
    say "" "peer: $(tail -n 1 "$work/peer.txt")"
    for entry in $MODELS; do
        IFS=: read -r model batch uratio <<<"$entry"
        uratio=${uratio:-1}
        name="$model $batch+$((batch * uratio))"
        for precision in f32 bf16; do
            amp=none
            [[ $precision == f32 ]] || amp=$precision
            ours=$work/ours its=$work/its compiled=$work/compiled
            : >"$ours" && : >"$its" && : >"$compiled"
            part "step $name $precision" "$harvest" bench step --model "$model" --batch "$batch" --uratio "$uratio" \
                --device "$DEVICE" --precision $precision --steps "$STEPS" --exact &&
                cp "$work/output" "$ours" && cat "$ours" >>"$lines"
            theirs=("$PYTHON" "$here/peers/torch_step.py" "$model" "$batch" --uratio "$uratio" --device "$DEVICE" --amp "$amp" --steps "$STEPS")
            if [[ $peer == yes ]]; then
                part "peer $name $precision" "${theirs[@]}" &&
                    tail -n 1 "$work/output" >"$its" && cat "$its" >>"$lines"
                [[ $COMPILE != yes || $precision != bf16 ]] || {
                    part "peer $name $precision, compiled" "${theirs[@]}" --compile &&
                        tail -n 1 "$work/output" >"$compiled" && cat "$compiled" >>"$lines"
                }
            fi
            a=$(field seconds_per_step "$ours") b=$(field seconds_per_step "$its") c=$(field seconds_per_step "$compiled")
            t=$(field tflops "$ours")
            share=$(awk -v t="$t" -v p="$peak" 'BEGIN { if (t > 0 && p > 0) printf "%.0f %%", 100 * t / p; else printf "–" }')
            [[ $precision == bf16 ]] || share=–
            rows+=("| $model | $batch | $((batch * uratio)) | $precision | $(number "$a") | $(number "$b") | $(number "$c") | $(ratio "$b" "$a") | $(ratio "$c" "$a") | $(number "$t") | $share | $(number "$(field peak_mib "$ours")") | $(number "$(field peak_mib "$its")") |")
        done
    done
fi

# Where the time goes: each kernel's share of the GPU's time, as cubecl measures them one by one.
if wanted profile; then
    for entry in $PROFILED; do
        IFS=: read -r model batch <<<"$entry"
        part "profile $model $batch" env CUBECL_DEBUG_LOG="$work/profile" \
            "$harvest" bench step --model "$model" --batch "$batch" --device "$DEVICE" --precision bf16 --steps 3 --exact
        say "" "kernels of $model, batch $batch, over five steps:"
        # "| 12.3µs | NAME": the sum of each name, the largest first.
        awk -F'|' '/^\| *[0-9.]+(ns|µs|ms|s) *\|/ {
            time = $2; gsub(/ /, "", time); value = time + 0
            if (time ~ /ns$/) value /= 1e6; else if (time ~ /µs$/) value /= 1e3; else if (time !~ /ms$/) value *= 1e3
            name = $3; sub(/^ */, "", name); sum[name] += value; count[name]++; all += value
        } END { for (name in sum) printf "%9.2f ms %5.1f %% %6d × %s\n", sum[name], 100 * sum[name] / all, count[name], substr(name, 1, 120) }' \
            "$work/profile" 2>/dev/null | sort -rn | sed -n 1,25p | tee -a "$log"
        rm -f "$work/profile"
    done
fi

# Sums of one rank on the memory of the GPU, right or wrong; what buckets and sums add to a step; two ranks on one GPU, where
# NCCL lets them share it.
bucket_rows=()
if wanted nccl; then
    # Python's packages bring NCCL where the system has none.
    nccl=$("$PYTHON" -c 'import nvidia.nccl as n; print(list(n.__path__)[0])' 2>/dev/null) &&
        export LD_LIBRARY_PATH=$nccl/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    part "nccl, 1 rank" "$harvest" bench nccl --device "$DEVICE" && cat "$work/output" >>"$lines"
    for entry in $BUCKETS; do
        IFS=: read -r model batch <<<"$entry"
        # Alternately, for the machine may change its speed meanwhile; the fastest of three medians.
        without=() with=()
        for _ in 1 2 3; do
            for buckets in "" --buckets; do
                part "nccl, $model $batch ${buckets:-without buckets}" "$harvest" bench step --model "$model" \
                    --batch "$batch" --device "$DEVICE" --precision bf16 --steps "$STEPS" $buckets || continue
                cat "$work/output" >>"$lines"
                seconds=$(field seconds_per_step "$work/output")
                [[ -n $buckets ]] && with+=("$seconds") || without+=("$seconds")
            done
        done
        a=$(printf '%s\n' "${without[@]}" | sort -g | sed -n 1p)
        b=$(printf '%s\n' "${with[@]}" | sort -g | sed -n 1p)
        bucket_rows+=("| $model | $batch | $(number "$a") | $(number "$b") | $(awk -v a="$a" -v b="$b" 'BEGIN { if (a > 0 && b > 0) printf "%+.1f %%", 100 * (b / a - 1); else printf "–" }') |")
    done
    # NCCL before 2.32 refuses, and that is no fault of ours.
    failures=$failed
    part "nccl, 2 ranks on one GPU" env NCCL_MULTI_RANK_GPU_ENABLE=1 "$harvest" bench nccl --device "$DEVICE" --ranks 2 &&
        cat "$work/output" >>"$lines"
    ! grep -qi 'same GPU\|invalid usage\|Duplicate GPU' "$work/errors" || failed=$failures
fi

# Every algorithm takes its steps on the device; the shares of their own arithmetic are in the log.
! wanted algorithms || part algorithms env OUT="$OUT" DEVICE="$DEVICE" STEPS="$STEPS" \
    MODELS="vit_tiny_patch2_32:64:1 resnet50_32:64:1" "$here/algorithms.sh" "$harvest"

{
    echo "# GPU, $(date --iso-8601=seconds)"
    echo
    echo "$gpu; $(what_machine); $("$harvest" --version 2>&1)$([[ ! -f $work/peer.txt ]] || echo "; peer: $(tail -n 1 "$work/peer.txt")")."
    if ((${#rows[@]})); then
        echo
        echo "## One FreeMatch training step"
        echo
        echo "Seconds; ratios are the peer's time over ours. All views are computed. f32 multiplies as TF32 on both sides. Tflop/s: what"
        echo "the networks' products and convolutions need, and its share of the GPU's peak in bf16. Memory: ours what the allocator"
        echo "has taken from the GPU, the peer's what was in use at most."
        echo
        echo "| model | batch | unlabelled | precision | ours s | peer s | compiled s | ratio | ratio to compiled | Tflop/s | of the peak | ours MiB | peer MiB |"
        echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        printf '%s\n' "${rows[@]}"
    fi
    if ((${#bucket_rows[@]})); then
        echo
        echo "## What buckets and a sum over one rank add to a step, bf16"
        echo
        echo "| model | batch | without s | with s | more |"
        echo "|---|---|---|---|---|"
        printf '%s\n' "${bucket_rows[@]}"
    fi
    echo
    echo "## Parts"
    echo
    echo "| part | result | seconds |"
    echo "|---|---|---|"
    printf '%s\n' "${results[@]}"
} | tee "$table" | tee -a "$log"
exit $failed

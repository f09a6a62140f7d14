#!/usr/bin/env bash
# Everything to be seen on a machine with an NVIDIA GPU. Needs the stripped binary of `cargo build --release --features
# cuda` and nothing else; where python3 has torch and timm, step times are compared with PyTorch's.
#
# usage: benches/gpu.sh [BINARY]        target/release/harvest
#   OUT      folder for gpu.log, gpu.jsonl and gpu.md            benches/results
#   DEVICE   cuda:N                                              cuda:0
#   PYTHON   python3
#   PARTS    of: doctor demo parity step algorithms              all of them
#   MODELS   of the step: MODEL:BATCH, or MODEL:BATCH:URATIO     see below
#   LIMIT    seconds a single command may take                   300
#   STEPS    measured steps                                      20
#
# A part that fails does not end the script; the table at the end has the result of each, and the exit code is 1 if one
# failed. Writes three files, so that they can be carried away from a machine that keeps nothing.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
DEVICE=${DEVICE:-cuda:0}
PYTHON=${PYTHON:-python3}
PARTS=${PARTS:-doctor demo parity step algorithms}
LIMIT=${LIMIT:-300}
STEPS=${STEPS:-20}
MODELS=${MODELS:-vit_tiny_patch2_32:8 vit_tiny_patch2_32:64 vit_small_patch2_32:64 vit_base_patch16_96:64 vit_base_patch16_224:16 resnet50_32:64 resnet50:16}
harvest=$(realpath "${1:-$here/../target/release/harvest}")
[[ -x $harvest ]] || {
    echo "there is no program $harvest; build it with: cargo build --release --features cuda" >&2
    exit 2
}
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
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 4)
gpu=${gpu:-unknown, nvidia-smi does not answer}
say "GPU: $gpu"
say "$("$harvest" --version 2>&1)"

! wanted doctor || part doctor "$harvest" doctor
# The first use of a GPU compiles kernels; that is part of what a user waits for.
! wanted demo || part demo "$harvest" demo --device "$DEVICE" --out "$work/demo"
if wanted parity; then
    for precision in f32 bf16; do
        part "parity, $precision" "$harvest" bench parity --device "$DEVICE" --precision $precision
    done
fi

# Every algorithm takes its steps on the device; the shares of their own arithmetic are in the log.
! wanted algorithms || part algorithms env OUT="$OUT" DEVICE="$DEVICE" STEPS="$STEPS" \
    MODELS="vit_tiny_patch2_32:64:1 resnet50_32:64:1" "$here/algorithms.sh" "$harvest"

rows=()
if wanted step; then
    peer=yes
    "$PYTHON" -c 'import torch, timm, torchvision; assert torch.cuda.is_available(), "torch sees no GPU"; print("PyTorch", torch.__version__)' \
        >"$work/peer.txt" 2>&1 || peer=no
    say "" "peer: $(tail -n 1 "$work/peer.txt")"
    for entry in $MODELS; do
        IFS=: read -r model batch uratio <<<"$entry"
        uratio=${uratio:-1}
        for precision in f32 bf16; do
            amp=none
            [[ $precision == f32 ]] || amp=$precision
            ours=$work/ours its=$work/its
            : >"$ours" && : >"$its"
            part "step $model $batch+$((batch * uratio)) $precision" "$harvest" bench step --model "$model" \
                --batch "$batch" --uratio "$uratio" --device "$DEVICE" --precision $precision --steps "$STEPS" &&
                cp "$work/output" "$ours" && cat "$ours" >>"$lines"
            if [[ $peer == yes ]]; then
                part "peer $model $batch+$((batch * uratio)) $precision" "$PYTHON" "$here/peers/torch_step.py" "$model" \
                    "$batch" --uratio "$uratio" --device "$DEVICE" --amp $amp --steps "$STEPS" &&
                    tail -n 1 "$work/output" >"$its" && cat "$its" >>"$lines"
            fi
            a=$(field images_per_second "$ours")
            b=$(field images_per_second "$its")
            rows+=("| $model | $batch | $((batch * uratio)) | $precision | $(number "$(field seconds_per_step "$ours")") | $(number "$(field seconds_per_step "$its")") | $(number "$a") | $(number "$b") | $(ratio "$a" "$b") | $(number "$(field peak_mib "$ours")") | $(number "$(field peak_mib "$its")") | $(number "$(field strong_computed "$ours")") |")
        done
    done
fi

{
    echo "# GPU, $(date --iso-8601=seconds)"
    echo
    echo "$gpu; $(what_machine); $("$harvest" --version 2>&1)$([[ ! -f $work/peer.txt ]] || echo "; peer: $(tail -n 1 "$work/peer.txt")")."
    if ((${#rows[@]})); then
        echo
        echo "## One FreeMatch training step"
        echo
        echo "f32 multiplies as TF32 on both sides. Memory: ours what the allocator has taken from the GPU, the peer's what was"
        echo "in use at most."
        echo
        echo "| model | batch | unlabelled | precision | ours s | peer s | ours images/s | peer images/s | ratio | ours MiB | peer MiB | strong views computed |"
        echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
        printf '%s\n' "${rows[@]}"
    fi
    echo
    echo "## Parts"
    echo
    echo "| part | result | seconds |"
    echo "|---|---|---|"
    printf '%s\n' "${results[@]}"
} | tee "$table" | tee -a "$log"
exit $failed

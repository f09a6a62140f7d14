#!/usr/bin/env bash
# SimCLR on the CPU against PyTorch: a training step, and making the views.
#
# usage: benches/simclr.sh [BINARY]        the program; without, it is built
#   OUT       folder for the table and the lines of JSON        benches/results
#   PYTHON    with torch, torchvision, numpy, pillow            python3; without them only our numbers are written
#   THREADS   for the step                                      all processors
#   ROUNDS    times that each side is measured, in turn         3
#   STEPS     steps of a round                                  15
#   BATCH     images a step                                     128
# Views are made by one thread on both sides. The fastest round of each counts: other work only ever slows down.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
PYTHON=${PYTHON:-python3}
THREADS=${THREADS:-$(nproc)}
ROUNDS=${ROUNDS:-3}
STEPS=${STEPS:-15}
BATCH=${BATCH:-128}
harvest=${1:-}
if [[ -z $harvest ]]; then
    (cd "$here/.." && cargo build --release --workspace --bin harvest) || exit 1
    harvest=${CARGO_TARGET_DIR:-$here/../target}/release/harvest
fi
mkdir -p "$OUT" || exit 1
name=$OUT/$(date +%F)-simclr
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
machine=$(what_machine)
: >"$name.jsonl"
status=0

# measure FILE COMMAND...: appends the command's line to FILE and to all lines.
measure() {
    local file=$1
    shift
    if "$@" >"$work/line" 2>"$work/errors"; then
        tail -n 1 "$work/line" | tee -a "$file" >>"$name.jsonl"
    else
        echo "failed: $*" >&2
        tail -n 3 "$work/errors" >&2
        status=1
    fi
}
# best KEY FILE: the largest value over all rounds.
best() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do printf '%s\n' "$line" >"$work/one"; field "$1" "$work/one"; done <"$2" | sort -g | tail -n 1
}

"$harvest" bench pictures "$work/pictures" --count 64 || exit 1
for ((round = 0; round < ROUNDS; round++)); do
    measure "$work/step.ours" "$harvest" bench simclr --batch "$BATCH" --steps "$STEPS" --device cpu --threads "$THREADS"
    measure "$work/step.peer" "$PYTHON" "$here/peers/torch_simclr.py" "$BATCH" --steps "$STEPS" --threads "$THREADS"
    for size in 32 224; do
        measure "$work/views-$size.ours" "$harvest" bench input "$work/pictures" --size $size --seconds 8 --threads 1
        measure "$work/views-$size.peer" "$PYTHON" "$here/peers/torch_simclr.py" --views --size $size --threads 1
    done
done
row() {
    local a b
    a=$(best "$2" "$3.ours") b=$(best images_per_second "$3.peer")
    echo "| $1 | $(number "$a") | $(number "$b") | $(ratio "$a" "$b") | $(number "$(best peak_mib "$3.ours")" %.0f) | $(number "$(best peak_mib "$3.peer")" %.0f) |"
}
{
    echo "# SimCLR on the CPU, $(date +%F)"
    echo
    echo "$machine; $THREADS threads for the step, one for views; $("$harvest" --version)$(
        "$PYTHON" -c 'import torch; print(f", PyTorch {torch.__version__}")' 2>/dev/null
    ). Made by \`benches/simclr.sh\`: the fastest of $ROUNDS rounds in turn."
    echo
    echo "| | ours, a second | peer, a second | ratio | ours MiB | peer MiB |"
    echo "|---|---|---|---|---|---|"
    row "views through a step, resnet8, $BATCH images of 32 × 32" images_per_second "$work/step"
    row "pairs of views made, 32 × 32" images_per_second_contrast "$work/views-32"
    row "pairs of views made, 224 × 224" images_per_second_contrast "$work/views-224"
} | tee "$name.md"
exit $status

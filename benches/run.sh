#!/usr/bin/env bash
# Speed and memory on the CPU against PyTorch, in one run: a training step, the input pipeline, lists of a million images.
#
# usage: benches/run.sh [BINARY]        the program; without, it is built
#   OUT       folder for the table and the lines of JSON        benches/results
#   PYTHON    with torch, timm, torchvision, pillow             python3; without them only our numbers are written
#   THREADS   for both                                          all processors
#   ROUNDS    times that each side is measured, in turn         3
#   STEPS     steps of a round                                  7
#   SECONDS_INPUT   of the input pipeline in each round         10
#   IMAGES    folder of JPEG or PNG images                      256 drawn pictures of 640 × 480
#
# Rounds alternate between the two programs, so that a change of the machine's load meets both; the table shows the
# fastest round of each, for other work on the machine only ever slows down, and all rounds are in the JSON.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
PYTHON=${PYTHON:-python3}
THREADS=${THREADS:-$(nproc)}
ROUNDS=${ROUNDS:-3}
STEPS=${STEPS:-7}
SECONDS_INPUT=${SECONDS_INPUT:-10}
harvest=${1:-}
if [[ -z $harvest ]]; then
    (cd "$here/.." && cargo build --release --workspace --bin harvest) || exit 1
    harvest=${CARGO_TARGET_DIR:-$here/../target}/release/harvest
fi
mkdir -p "$OUT" || exit 1
name=$OUT/$(date +%F)-cpu
table=$name.md
lines=$name.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$lines"
status=0

peer=yes
"$PYTHON" -c 'import torch, timm, torchvision, PIL' 2>"$work/peer.txt" || {
    peer=no
    echo "no peer: $(tail -n 1 "$work/peer.txt")"
}

# measure FILE COMMAND...: appends the command's line to FILE and to all lines.
measure() {
    local file=$1
    shift
    printf '$ %s\n' "${*/#$work/…}" >&2
    if "$@" >"$work/line" 2>"$work/errors"; then
        tail -n 1 "$work/line" | tee -a "$file" >>"$lines"
    else
        echo "failed: $*" >&2
        tail -n 5 "$work/errors" >&2
        status=1
    fi
}

# best KEY FILE: the largest value over all rounds.
best() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do printf '%s\n' "$line" >"$work/one"; field "$1" "$work/one"; done <"$2" |
        sort -g | tail -n 1
}
least() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do printf '%s\n' "$line" >"$work/one"; field "$1" "$work/one"; done <"$2" |
        sort -g | head -n 1
}

{
    echo "# CPU, $(date +%F)"
    echo
    echo "$(what_machine); $THREADS threads; $("$harvest" --version)$(
        [[ $peer == yes ]] && "$PYTHON" -c 'import torch, torchvision; print(f", PyTorch {torch.__version__}, torchvision {torchvision.__version__}")'
    )."
    echo "Made by \`benches/run.sh\`: $ROUNDS rounds of each in turn, the fastest of each; all of them in \`$(basename "$lines")\`."
    echo
    echo "## One FreeMatch training step, float32"
    echo
    echo "Labelled, weak and strong views a second, masked views included; no view was left out where the share computed is 1."
    echo
    echo "| model | batch | unlabelled | ours s | peer s | ours images/s | peer images/s | ratio | ours MiB | peer MiB | strong views computed |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|"
} >"$table"

# step MODEL BATCH URATIO [PEER'S MODEL]
step() {
    local model=$1 batch=$2 uratio=$3 theirs=${4:-} ours=$work/$1-$2-$3.ours its=$work/$1-$2-$3.peer round
    for ((round = 0; round < ROUNDS; round++)); do
        measure "$ours" "$harvest" bench step --model "$model" --batch "$batch" --uratio "$uratio" --steps "$STEPS" \
            --device cpu --precision f32 --threads "$THREADS"
        [[ $peer == no || -z $theirs ]] ||
            measure "$its" "$PYTHON" "$here/peers/torch_step.py" "$theirs" "$batch" --uratio "$uratio" --steps "$STEPS" \
                --threads "$THREADS"
    done
    local a b
    a=$(best images_per_second "$ours")
    b=$(best images_per_second "$its")
    echo "| $model | $batch | $((batch * uratio)) | $(number "$(least seconds_per_step "$ours")") | $(number "$(least seconds_per_step "$its")") | $(number "$a") | $(number "$b") | $(ratio "$a" "$b") | $(number "$(best peak_mib "$ours")" %.0f) | $(number "$(best peak_mib "$its")" %.0f) | $(number "$(best strong_computed "$ours")") |" >>"$table"
}
step vit_tiny_patch2_32 8 1 vit_tiny_patch2_32
# The network of the Fashion-MNIST comparison; its peer is timed by fashion_mnist.sh.
step resnet8 32 4

images=${IMAGES:-}
if [[ -z $images ]]; then
    images=$work/pictures
    "$harvest" bench pictures "$images" --count 256 || status=1
fi
{
    echo
    echo "## Input pipeline"
    echo
    echo "A weak and a strong view of an image as normalised tensors. The peer decodes in every epoch; ours decodes once and"
    echo "keeps the pixels. The last column counts all of that as if each image were seen once only."
    echo
    echo "| size | images | ours images/s | peer images/s | ratio | ours, scan and cache included | ratio then |"
    echo "|---|---|---|---|---|---|---|"
} >>"$table"
for size in 224 32; do
    for ((round = 0; round < ROUNDS; round++)); do
        measure "$work/input-$size.ours" "$harvest" bench input "$images" --size $size --seconds "$SECONDS_INPUT" \
            --threads "$THREADS"
        [[ $peer == no ]] ||
            measure "$work/input-$size.peer" "$PYTHON" "$here/peers/torch_augment.py" "$images" --size $size \
                --workers "$THREADS" --seconds "$SECONDS_INPUT"
    done
    a=$(best images_per_second "$work/input-$size.ours")
    b=$(best images_per_second "$work/input-$size.peer")
    c=$(best images_per_second_first_epoch "$work/input-$size.ours")
    echo "| $size | $(number "$(best files "$work/input-$size.ours")") | $(number "$a") | $(number "$b") | $(ratio "$a" "$b") | $(number "$c") | $(ratio "$c" "$b") |" >>"$table"
done

measure "$work/manifest" "$harvest" bench manifest --rows 1000000
{
    echo
    echo "## A list of 1,000,000 images"
    echo
    echo "| find copies s | write s | read s | split s | sample an epoch s | file MiB | peak MiB |"
    echo "|---|---|---|---|---|---|---|"
    printf '|'
    for key in link_seconds write_seconds read_seconds split_seconds sample_seconds file_mib peak_mib; do
        printf ' %s |' "$(number "$(field $key "$work/manifest")")"
    done
    echo
} >>"$table"
cat "$table"
exit $status

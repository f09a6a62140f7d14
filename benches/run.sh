#!/usr/bin/env bash
# Speed and memory on the CPU against PyTorch, in one run: a training step, the input pipeline, lists of a million images.
#
# usage: benches/run.sh [BINARY]        the program; without, it is built
#   OUT       folder for the table and the lines of JSON        benches/results
#   PYTHON    with torch, timm, torchvision, pillow, onnxruntime  python3; without them only our numbers are written
#   THREADS   for both                                          all processors
#   ROUNDS    times that each side is measured, in turn         5
#   STEPS     steps of a round                                  7
#   SECONDS_INPUT   of the input pipeline in each round         10
#   IMAGES    folder of JPEG or PNG images                      256 drawn pictures of 640 × 480
#
# Rounds alternate between the two programs, so that a change of the machine's load meets both.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
PYTHON=${PYTHON:-python3}
THREADS=${THREADS:-$(nproc)}
ROUNDS=${ROUNDS:-5}
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
"$PYTHON" -c 'import torch, timm, torchvision, PIL, onnxruntime' 2>"$work/peer.txt" || {
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

# medians KEY FILE: the median over all rounds.
medians() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do printf '%s\n' "$line" >"$work/one"; field "$1" "$work/one"; done <"$2" | middle
}

# middle: the median of the numbers on standard input.
middle() {
    sort -g | awk 'NF { v[++n] = $1 } END { if (n) print (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2 }'
}

# ratios KEY OURS PEERS: the peer's seconds over ours, round by round: their median, and from where to where they go.
ratios() {
    [[ -f $2 && -f $3 ]] || { printf '–'; return; }
    paste -d '\n' "$2" "$3" | while IFS= read -r a && IFS= read -r b; do
        printf '%s\n' "$a" >"$work/one" && printf '%s\n' "$b" >"$work/other"
        ratio "$(field "$1" "$work/other")" "$(field "$1" "$work/one")"
        echo
    done >"$work/ratios"
    printf '**%.2f** (%.2f to %.2f)' "$(middle <"$work/ratios")" "$(sort -g "$work/ratios" | sed -n 1p)" "$(sort -g "$work/ratios" | tail -n 1)"
}

{
    echo "# CPU, $(date +%F)"
    echo
    echo "$(what_machine); $THREADS threads; $("$harvest" --version)$(
        [[ $peer == yes ]] && "$PYTHON" -c 'import torch, torchvision, onnxruntime; print(f", PyTorch {torch.__version__}, torchvision {torchvision.__version__}, ONNX Runtime {onnxruntime.__version__}")'
    )."
    echo "Made by \`benches/run.sh\`: $ROUNDS rounds of each in turn; medians, and the ratios of single rounds from the least to the most;"
    echo "all rounds are in \`$(basename "$lines")\`."
    echo
    echo "## Training steps and inference"
    echo
    echo "Seconds of a FreeMatch step or a forward pass; all views are computed, but ours learns nothing from weak views and the peer"
    echo "keeps a graph for them too. The ratio is the peer's time over ours."
    echo
    echo "| work | ours s | peer s | ratio | wanted | ours MiB | peer MiB | share | page faults a step |"
    echo "|---|---|---|---|---|---|---|---|---|"
} >"$table"

# pair NAME WANTED KEY: measures the commands in the arrays `ours` and `theirs` in turn and writes a row.
pair() {
    local a=$work/$rows.ours b=$work/$rows.peer round
    rows=$((rows + 1))
    for ((round = 0; round < ROUNDS; round++)); do
        measure "$a" "${ours[@]}"
        [[ $peer == no ]] || measure "$b" "${theirs[@]}"
    done
    local mine its
    mine=$(medians peak_mib "$a") its=$(medians peak_mib "$b")
    echo "| $1 | $(number "$(medians "$3" "$a")") | $(number "$(medians "$3" "$b")") | $(ratios "$3" "$a" "$b") | $2 | $(number "$mine" %.0f) | $(number "$its" %.0f) | $(ratio "$mine" "$its") | $(number "$(medians page_faults "$a")" %.0f) |" >>"$table"
}
rows=0

# step NAME WANTED MODEL BATCH URATIO PRECISION [MORE...]
step() {
    local name=$1 wanted=$2 model=$3 batch=$4 uratio=$5 precision=$6 amp=none
    shift 6
    [[ $precision == f32 ]] || amp=bf16
    ours=("$harvest" bench step --model "$model" --batch "$batch" --uratio "$uratio" --steps "$STEPS" --device cpu
        --precision "$precision" --threads "$THREADS" --exact "$@")
    theirs=("$PYTHON" "$here/peers/torch_step.py" "$model" "$batch" --uratio "$uratio" --steps "$STEPS" --amp "$amp" --threads "$THREADS")
    [[ $model != resnet50 ]] || theirs[2]=resnet50_32
    pair "$name" "$wanted" seconds_per_step
}
# best WANTED MODEL BATCH URATIO: in bf16, where the processor has it; elsewhere that is many times slower than float32, of both.
best() {
    if grep -qw 'avx512_bf16\|amx_bf16' /proc/cpuinfo; then
        step 'the same, bf16' "$1" "${@:2}" bf16
    else
        echo "| the same, best precision each | – | – | float32 is the best here, see above | $1 | – | – | – | – |" >>"$table"
    fi
}
step '`vit_tiny_patch2_32`, batch 8, float32' 2.0 vit_tiny_patch2_32 8 1 f32
best 1.2 vit_tiny_patch2_32 8 1
step '`vit_small_patch2_32`, batch 8, float32' 2.0 vit_small_patch2_32 8 1 f32
best 1.2 vit_small_patch2_32 8 1
step '`resnet50` at 32 px, batch 8, float32' 1.2 resnet50 8 1 f32 --image-size 32
step '`resnet8`, 32 + 128 + 128 images, float32' 1.5 resnet8 32 4 f32

bundle=$work/bundle
"$harvest" bench inference --passes 1 --device cpu --export "$bundle" >/dev/null || status=1
for batch in 1 64; do
    ours=("$harvest" bench inference --batch $batch --passes $((batch == 1 ? 40 : STEPS)) --device cpu --threads "$THREADS")
    theirs=("$PYTHON" "$here/peers/onnx_infer.py" "$bundle/model.onnx" $batch --passes $((batch == 1 ? 40 : STEPS)) --threads "$THREADS")
    pair "inference \`vit_tiny_patch16_224\`, batch $batch (ONNX Runtime)" 1.0 seconds_per_pass
done

# whole COMMAND...: the seconds from its start to its end, as a line of JSON.
whole() {
    local begun
    begun=$(now)
    "$@" >/dev/null && printf '{"seconds": %s}\n' "$(since "$begun")"
}
ours=(whole "$harvest" bench step --model resnet8 --batch 8 --steps 1 --device cpu --threads "$THREADS")
theirs=(whole "$PYTHON" "$here/peers/torch_step.py" resnet8 8 --steps 1 --threads "$THREADS")
pair 'start of the program to the end of its third step, `resnet8`, batch 8' 10 seconds

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
    a=$(medians images_per_second "$work/input-$size.ours")
    b=$(medians images_per_second "$work/input-$size.peer")
    c=$(medians images_per_second_first_epoch "$work/input-$size.ours")
    echo "| $size | $(number "$(medians files "$work/input-$size.ours")") | $(number "$a") | $(number "$b") | $(ratio "$a" "$b") | $(number "$c") | $(ratio "$c" "$b") |" >>"$table"
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

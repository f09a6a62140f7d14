#!/usr/bin/env bash
# Fashion-MNIST with 10 labels of each class and 60,000 unlabelled images: accuracy and time against PyTorch's, with
# supervised training on the same labels beside it. Both learn from the same 100 labelled images, drawn anew for each seed,
# and test averaged weights with the running statistics of the live network, as the peer does; our default is better.
#
# usage: benches/fashion_mnist.sh [BINARY]      the program; without, it is built
#   OUT           folder for the table and the lines                      benches/results
#   PYTHON        with torch, torchvision, numpy, pillow                  python3; without them only our numbers are written
#   SEEDS         "0 1 2"
#   PEER_MINUTES  no run of the peer begins that would end after this     30
#   THREADS       all processors
#   DATA          folder of the four IDX files                            /usr/share/datasets/fashion-mnist
#   STEPS         for a trial of this script                              as in the recipe
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
PYTHON=${PYTHON:-python3}
SEEDS=${SEEDS:-0 1 2}
PEER_MINUTES=${PEER_MINUTES:-30}
THREADS=${THREADS:-$(nproc)}
DATA=${DATA:-/usr/share/datasets/fashion-mnist}
recipe=$here/../configs/fashion_mnist.toml
harvest=${1:-}
if [[ -z $harvest ]]; then
    (cd "$here/.." && cargo build --release --workspace --bin harvest) || exit 1
    harvest=${CARGO_TARGET_DIR:-$here/../target}/release/harvest
fi
[[ -d $DATA ]] || {
    echo "there is no $DATA; install Debian's dataset-fashion-mnist or set DATA" >&2
    exit 2
}
mkdir -p "$OUT" || exit 1
name=$OUT/$(date +%F)-fashion-mnist
table=$name.md lines=$name.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$lines"
status=0
peer=yes
"$PYTHON" -c 'import torch, torchvision, numpy, PIL' 2>"$work/peer.txt" || {
    peer=no
    echo "no peer: $(tail -n 1 "$work/peer.txt")"
}
machine=$(what_machine)
# The recipe is the one place that says how large images are and how many steps there are.
setting() { sed -n "s/^$1 *= *\([0-9]*\).*/\1/p" "$recipe"; }
size=$(setting image_size)
STEPS=${STEPS:-$(setting steps)}

# ours ALGORITHM SEED: trains; appends a line with accuracy and seconds, sets $run to the run's folder.
run=
ours() {
    local algorithm=$1 seed=$2 start summary wall
    start=$(now)
    echo "\$ harvest train --config configs/fashion_mnist.toml --algorithm $algorithm --seed $seed" >&2
    if ! RAYON_NUM_THREADS=$THREADS "$harvest" train --config "$recipe" --data "$DATA" --device cpu --algorithm "$algorithm" \
        --steps "$STEPS" --set training.seed="$seed" --set data.seed="$seed" --set training.ema_statistics=live \
        --set run.folder="$work/runs" --fresh --quiet \
        >"$work/output" 2>"$work/errors"; then
        tail -n 5 "$work/errors" >&2
        status=1
        return 1
    fi
    wall=$(since "$start")
    summary=$(head -n 1 "$work/output")
    run=$(sed -n 's/^model: *\(.*\)\/bundle$/\1/p' "$work/output")
    # «800 steps in 93.1 s, 84.2 % (83.5 to 84.9) of 10000 test images right»
    local seconds accuracy
    seconds=$(sed -n 's/.*steps in \([0-9.]*\) s.*/\1/p' <<<"$summary")
    accuracy=$(sed -n 's/.* \([0-9.]*\) % ([0-9. to]*) of [0-9]* test images right.*/\1/p' <<<"$summary")
    printf '{"program":"%s","algorithm":"%s","seed":%s,"steps":%s,"size":%s,"threads":%s,"accuracy":%s,"seconds":%s,"seconds_total":%s}\n' \
        "$("$harvest" --version)" "$algorithm" "$seed" "$STEPS" "$size" "$THREADS" \
        "$(awk -v a="$accuracy" 'BEGIN { printf "%.4f", a / 100 }')" "${seconds:-null}" "$wall" |
        tee -a "$work/ours-$algorithm" "$lines"
}

# labels_of RUN: positions of its labelled images among the training images, for the peer.
labels_of() {
    "$PYTHON" - "$1/inputs" <<'PYTHON'
import json, sys
folder = sys.argv[1]
with open(f"{folder}/images.jsonl") as lines:
    next(lines)  # the header
    paths = [json.loads(line).get("path", "") for line in lines]
with open(f"{folder}/split.json") as file:
    labelled = json.load(file)["labelled"]
for index in labelled:
    file, position = paths[index].rsplit("#", 1)
    assert "train-images" in file, file
    print(position)
PYTHON
}

# theirs ALGORITHM SEED LABELS
theirs() {
    local flags=()
    [[ $1 == freematch ]] || flags=(--supervised)
    echo "\$ fashion_mnist.py --seed $2 ${flags[*]}" >&2
    if "$PYTHON" "$here/peers/fashion_mnist.py" --data "$DATA" --labels "$3" --seed "$2" --size "$size" --steps "$STEPS" \
        --threads "$THREADS" "${flags[@]}" >"$work/output" 2>"$work/errors"; then
        tail -n 1 "$work/output" | tee -a "$work/peer-$1" "$lines"
    else
        tail -n 5 "$work/errors" >&2
        status=1
    fi
}

spent=0
for seed in $SEEDS; do
    for algorithm in freematch supervised; do
        ours $algorithm "$seed" || continue
        [[ $peer == yes ]] || continue
        labels_of "$run" >"$work/labels-$seed" || { status=1; continue; }
        last=${took[$([[ $algorithm == freematch ]] && echo 0 || echo 1)]:-0}
        if awk -v s="$spent" -v l="$last" -v m="$PEER_MINUTES" 'BEGIN { exit !(s + l > 60 * m) }'; then
            echo "the peer's $PEER_MINUTES minutes are used up: no $algorithm with seed $seed" >&2
            continue
        fi
        start=$(now)
        theirs $algorithm "$seed" "$work/labels-$seed"
        last=$(since "$start")
        took[$([[ $algorithm == freematch ]] && echo 0 || echo 1)]=$last
        spent=$(awk -v a="$spent" -v b="$last" 'BEGIN { print a + b }')
    done
done

# every KEY FILE [FACTOR]: the values of all lines.
every() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do printf '%s\n' "$line" >"$work/one"; field "$1" "$work/one"; done <"$2" |
        awk -v f="${3:-1}" '{ print $1 * f }'
}
mean() { every "$@" | awk '{ n++; s += $1 } END { if (n) print s / n }'; }
{
    echo "# Fashion-MNIST, $(date +%F)"
    echo
    echo "10 labels of each class, 60,000 images unlabelled, test on the 10,000; $STEPS steps of 32 + 4 × 32 images of $size × $size,"
    echo "the small residual network. $machine; $THREADS threads; $("$harvest" --version)$(
        [[ $peer == yes ]] && "$PYTHON" -c 'import torch; print(f", PyTorch {torch.__version__}")'
    ). Made by \`benches/fashion_mnist.sh\`; for each seed both learn from the same labelled images."
    echo
    echo "| | seeds | accuracy % | training s | whole program s |"
    echo "|---|---|---|---|---|"
    for side in ours peer; do
        for algorithm in freematch supervised; do
            file=$work/$side-$algorithm
            [[ -s $file ]] || continue
            # shellcheck disable=SC2046 # one word for each value
            echo "| $side, $algorithm | $(wc -l <"$file") | $(mean_of $(every accuracy "$file" 100)) | $(FORMAT=%.1f mean_of $(every seconds "$file")) | $(FORMAT=%.1f mean_of $(every seconds_total "$file")) |"
        done
    done
    if [[ -s $work/peer-freematch ]]; then
        echo
        echo "Time of ours, in that of the peer: training $(ratio "$(mean seconds "$work/ours-freematch")" "$(mean seconds "$work/peer-freematch")"), whole program $(ratio "$(mean seconds_total "$work/ours-freematch")" "$(mean seconds_total "$work/peer-freematch")")."
    fi
    echo
    echo "| seed | ours, FreeMatch % | peer, FreeMatch % | ours, supervised % | peer, supervised % |"
    echo "|---|---|---|---|---|"
    for seed in $SEEDS; do
        printf '| %s |' "$seed"
        for file in ours-freematch peer-freematch ours-supervised peer-supervised; do
            grep -E "\"seed\": ?$seed[,}]" "$work/$file" >"$work/one" 2>/dev/null || : >"$work/one"
            value=$(field accuracy "$work/one")
            printf ' %s |' "$(number "${value:+$(awk -v a="$value" 'BEGIN { print a * 100 }')}" %.2f)"
        done
        echo
    done
} | tee "$table"
exit $status

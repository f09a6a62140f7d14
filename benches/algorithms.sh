#!/usr/bin/env bash
# Time of a training step with each algorithm, relative to FixMatch, and the share of the algorithm's own arithmetic.
#
# usage: benches/algorithms.sh [BINARY]        the program; without, it is built
#   OUT       folder for the table and the lines                    benches/results
#   DEVICE    cpu, cuda, cuda:N                                     cpu
#   MODELS    MODEL:BATCH:URATIO                                    vit_tiny_patch2_32:8:1 resnet8:32:4
#   STEPS     measured steps of each                                7
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
DEVICE=${DEVICE:-cpu}
MODELS=${MODELS:-vit_tiny_patch2_32:8:1 resnet8:32:4}
STEPS=${STEPS:-7}
harvest=${1:-}
if [[ -z $harvest ]]; then
    (cd "$here/.." && cargo build --release --workspace --bin harvest) || exit 1
    harvest=${CARGO_TARGET_DIR:-$here/../target}/release/harvest
fi
mkdir -p "$OUT" || exit 1
name=$OUT/$(date +%F)-algorithms
[[ $DEVICE == cpu ]] || name=$OUT/gpu-algorithms
lines=$name.jsonl
one=$(mktemp)
trap 'rm -f "$one"' EXIT
machine=$(what_machine)
: >"$lines"
status=0
{
    echo "# Algorithms, $(date +%F)"
    echo
    echo "$machine; $("$harvest" --version); device $DEVICE, float32, random pictures of 10 classes. Median of $STEPS steps, all"
    echo "algorithms in turn. *Own arithmetic*: the same step on a stand-in network that costs next to nothing. Made by"
    echo "\`benches/algorithms.sh\`."
    for entry in $MODELS; do
        IFS=: read -r model batch uratio <<<"$entry"
        echo
        echo "## $model, $batch labelled and $((batch * uratio)) unlabelled images a step"
        echo
        echo "| algorithm | weak + strong views | seconds a step | relative to FixMatch | own arithmetic, ms | its share |"
        echo "|---|---|---|---|---|---|"
        "$harvest" bench algorithms --model "$model" --batch "$batch" --uratio "$uratio" --steps "$STEPS" --device "$DEVICE" |
            while IFS= read -r line; do
                printf '%s\n' "$line" | tee "$one" >>"$lines"
                printf '| %s | %s + %s | %s | %s | %s | %s %% |\n' "$(field algorithm "$one")" "$(field weak_views "$one")" \
                    "$(field strong_views "$one")" "$(number "$(field seconds_per_step "$one")")" \
                    "$(number "$(field relative_to_fixmatch "$one")" %.2f)" \
                    "$(awk -v s="$(field own_seconds "$one")" 'BEGIN { printf "%.2f", s * 1000 }')" \
                    "$(awk -v s="$(field own_share "$one")" 'BEGIN { printf "%.1f", s * 100 }')"
            done || status=1
    done
    exit $status
} | tee "$name.md"
exit "${PIPESTATUS[0]}"

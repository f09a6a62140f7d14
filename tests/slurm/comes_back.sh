# Jobs end as an undisturbed one does, whatever happens to them on the way. Part of scripts/slurm-check.

# launch NAME NODES ARGUMENTS...: the one run of NAME, as a job; sets $job, $output.
launch() {
    local folder=$work/$1 nodes=$2 start
    shift 2
    mkdir -p "$folder"
    start=$(find "$folder" -maxdepth 1 -name 'job*' | wc -l)
    output=$folder/job$start/output.txt
    "$harvest" launch --nodes "$nodes" --time 10 --folder "$folder/job$start" -- train --quiet --config "$recipe" \
        --data "$work/photos" --device cpu --set run.folder="$folder/runs" "$@" | tee "$work/launched"
    job=$(sed -n 's/^job \([0-9]*\):.*/\1/p' "$work/launched")
}

state_of() { squeue --noheader --states=all --jobs="$1" --format=%T; }
is_state() { [[ $(state_of "$1") == "$2" ]]; }

# ends_as JOB STATE: within a minute, of which Slurm takes some seconds for each new start.
ends_as() {
    until_true 60 "job $1 $2" is_state "$1" "$2"
}

# reaches NAME STEP: a checkpoint at that step or later.
reaches() {
    local last
    last=$(cat "$work/$1"/runs/*/checkpoints/last 2>/dev/null) || return 1
    last=${last#step-}
    ((10#$last >= $2))
}
until_step() { until_true 40 "a checkpoint of step $2" reaches "$1" "$2"; }

# pid_of JOB RANK
pid_of() {
    local environment
    for environment in /proc/[0-9]*/environ; do
        [[ $(readlink "${environment%environ}exe") == "$(realpath "$harvest")" ]] &&
            grep --null-data --no-messages --quiet --line-regexp "SLURM_JOB_ID=$1" "$environment" &&
            grep --null-data --no-messages --quiet --line-regexp "SLURM_PROCID=$2" "$environment" || continue
        environment=${environment#/proc/}
        echo "${environment%/environ}"
        return
    done 2>/dev/null
    echo "rank $2 of job $1 is not there" >&2
    return 1
}

# outcome NAME: accuracy, number of labels it gives, number of starts; every checkpoint must be whole.
outcome() {
    look whole "$work/$1/runs" >&2
    "$harvest" labels --quiet --device cpu "$work/$1"/runs/*-freematch-* >/dev/null
    look result "$work/$1/runs"
}

# undisturbed NAME ARGUMENTS...: what others are compared with.
undisturbed() {
    local name=$1
    shift
    launch "$name" 4 "$@"
    ends_as "$job" COMPLETED
    outcome "$name" >"$work/$name/outcome"
    cat "$work/$name/outcome"
}

# as NAME NAME STARTS [IMAGES]: the same accuracy, but for so many of the 500 test images, and as many labels, but for five
# times as many of the 2500; it must have been started so often.
as() {
    local accuracy labels starts wanted_accuracy wanted_labels
    read -r accuracy labels starts < <(outcome "$2")
    read -r wanted_accuracy wanted_labels _ <"$work/$1/outcome"
    echo "$accuracy % right, $labels labels, $starts starts; undisturbed: $wanted_accuracy %, $wanted_labels"
    ((starts == $3)) || return 1
    awk -v images="${4:-0}" -v a="$accuracy" -v b="$wanted_accuracy" -v l="$labels" -v m="$wanted_labels" 'BEGIN {
        exit !((a - b) ^ 2 <= (images / 5) ^ 2 + 1e-9 && (l - m) ^ 2 <= (5 * images) ^ 2)
    }'
}

for name in preempted cancelled killed hung; do
    wanted undisturbed || ! wanted "$name" || only+=(undisturbed)
done
check undisturbed 60 undisturbed undisturbed

preempted() {
    launch preempted 4
    until_step preempted 20
    sbatch --quiet --partition=high --nodes=4 --exclusive --output=/dev/null --wrap='sleep 1'
    ends_as "$job" COMPLETED
    expect 'ended with code 75, starts again' "$output"
    expect 'restart 1,' "$output"
    as undisturbed preempted 2
}
check preempted 100 preempted

cancelled() {
    launch cancelled 4
    until_step cancelled 20
    scancel "$job"
    ends_as "$job" CANCELLED
    launch cancelled 4
    ends_as "$job" COMPLETED
    as undisturbed cancelled 2
}
check cancelled 100 cancelled

# lost NAME RANK: every other rank tells of it.
all_tell() {
    local rank
    expect "^rank $2 on node n$(($2 + 1)) last seen at step [0-9]+" "$1"
    for rank in 0 1 2 3; do
        ((rank == $2)) || expect "^rank $rank ends; started again" "$1"
    done
}

killed() {
    launch killed 4
    until_step killed 20
    kill -KILL "$(pid_of "$job" 2)"
    ends_as "$job" COMPLETED
    all_tell "$output" 2
    expect 'restart 1,' "$output"
    as undisturbed killed 2
}
check killed 100 killed

hung() {
    local start
    launch hung 4
    until_step hung 20
    start=$SECONDS
    kill -STOP "$(pid_of "$job" 1)"
    until_true 30 'the others notice' grep --quiet 'ended with code' "$output"
    echo "noticed after $((SECONDS - start)) s"
    all_tell "$output" 1
    ends_as "$job" COMPLETED
    as undisturbed hung 2
}
check hung 130 hung

# 4, then 2, then 3 ranks. A smooth network, which carries rounding on so little that the results can be compared: with
# the residual one, any other rounding turns ten of the 500 test images.
other_numbers() {
    local smooth=(--model vit_tiny_patch2_32 --set model.image_size=8 --set training.steps=60 --set training.lr=4e-4
        --set confidence.target_error=0.8)
    undisturbed other-numbers-none "${smooth[@]}"
    launch other-numbers 4 "${smooth[@]}"
    until_step other-numbers 20
    scancel "$job"
    ends_as "$job" CANCELLED
    launch other-numbers 2 "${smooth[@]}"
    until_step other-numbers 40
    scancel "$job"
    ends_as "$job" CANCELLED
    launch other-numbers 3 "${smooth[@]}"
    ends_as "$job" COMPLETED
    as other-numbers-none other-numbers 3 2
}
check other-numbers 150 other_numbers

# A rank that is killed again and again before anything is saved. The run's folder lists the steps of its starts.
no_progress() {
    local zeros=
    launch no-progress 4 --set training.checkpoint_every=1000
    for zeros in 0 0,0 0,0,0; do
        until_true 40 "starts at $zeros" starts_at no-progress "$zeros"
        kill -KILL "$(pid_of "$job" 3)"
        until_true 20 "the end of start $zeros" ended_times "$output" "${zeros//[^0]/}"
    done
    ends_as "$job" FAILED
    expect 'started 3 times at step 0 and never got beyond it' "$output"
    expect 'failed, not started again' "$output"
    tail -n 1 "$output"
}
starts_at() { grep --quiet --no-messages --fixed-strings "[$2]" "$work/$1"/runs/*/starts.json; }
# As many ends as there are characters in $2.
ended_times() { (($(grep --count 'ended with code' "$1") >= ${#2})); }
check no-progress 90 no_progress

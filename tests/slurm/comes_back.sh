# Jobs end as an undisturbed one does, whatever happens to them on the way. Part of scripts/slurm-check.

# launch NAME NODES ARGUMENTS...: the one run of NAME, as a job; sets $job, $output.
launch() {
    local folder=$work/$1 nodes=$2 start
    shift 2
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

# as_undisturbed NAME [OFF]: accuracy, labels and checkpoints; with other numbers of ranks sums are rounded otherwise, which
# may turn OFF of the 500 test images.
as_undisturbed() {
    local name=$1 off=${2:-0} accuracy labelled starts
    look whole "$work/$name/runs"
    "$harvest" labels --quiet --device cpu "$work/$name"/runs/*-freematch-resnet8 >/dev/null
    read -r accuracy labelled starts < <(look result "$work/$name/runs")
    if [[ $name == undisturbed ]]; then
        echo "$accuracy $labelled" >"$work/expected"
    else
        ((starts >= 2)) || {
            echo "it was started $starts times: nothing disturbed it"
            return 1
        }
    fi
    echo "$accuracy % right, $labelled labels, $starts starts; undisturbed: $(<"$work/expected")"
    awk -v accuracy="$accuracy" -v labelled="$labelled" -v off="$off" '
        { exit !((accuracy - $1) ^ 2 <= (off / 5) ^ 2 + 1e-9 && (labelled - $2) ^ 2 <= (25 * off / 5) ^ 2) }
    ' "$work/expected"
}

undisturbed() {
    launch undisturbed 4
    ends_as "$job" COMPLETED
    as_undisturbed undisturbed
}
# The others are compared with it.
for name in preempted cancelled killed hung other-numbers; do
    wanted undisturbed || ! wanted "$name" || only+=(undisturbed)
done
check undisturbed 60 undisturbed

preempted() {
    launch preempted 4
    until_step preempted 20
    sbatch --quiet --partition=high --nodes=4 --exclusive --output=/dev/null --wrap='sleep 1'
    ends_as "$job" COMPLETED
    expect 'ended with code 75, starts again' "$output"
    expect 'restart 1,' "$output"
    as_undisturbed preempted
}
check preempted 100 preempted

cancelled() {
    launch cancelled 4
    until_step cancelled 20
    scancel "$job"
    ends_as "$job" CANCELLED
    launch cancelled 4
    ends_as "$job" COMPLETED
    as_undisturbed cancelled
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
    as_undisturbed killed
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
    as_undisturbed hung
}
check hung 130 hung

# 4, then 2, then 3 ranks.
other_numbers() {
    local step=20 ranks
    for ranks in 4 2; do
        launch other-numbers $ranks
        until_step other-numbers $step
        scancel "$job"
        ends_as "$job" CANCELLED
        step=$((step + 40))
    done
    launch other-numbers 3
    ends_as "$job" COMPLETED
    as_undisturbed other-numbers 3
}
check other-numbers 130 other_numbers

# A rank that is killed again and again before anything is saved. The run's folder lists the steps of its starts.
no_progress() {
    local zeros=
    launch no-progress 4 --set training.checkpoint_every=1000
    for zeros in 0 0,0 0,0,0; do
        until_true 40 "starts at $zeros" grep --quiet --fixed-strings "[$zeros]" "$work"/no-progress/runs/*/starts.json
        until_true 10 'rank 3' pid_of "$job" 3 >/dev/null
        kill -KILL "$(pid_of "$job" 3)"
        until_true 20 "the end of start $zeros" ended_times "$output" "${zeros//[^0]/}"
    done
    ends_as "$job" FAILED
    expect 'started 3 times at step 0 and never got beyond it' "$output"
    expect 'failed, not started again' "$output"
    tail -n 1 "$output"
}
# As many ends as there are characters in $2.
ended_times() { (($(grep --count 'ended with code' "$1") >= ${#2})); }
check no-progress 90 no_progress

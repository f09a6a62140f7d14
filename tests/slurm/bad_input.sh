# What is wrong ends every rank with a clear message, in time. Part of scripts/slurm-check.

# One rank's training, for the cases below.
bad_train=("$harvest" train --quiet --config "$recipe" --device cpu --set run.folder="$work/bad-runs")
export HARVEST_RUN__LIMIT_SECONDS=5

# refused NAME WORDS STATUS...: none ended well or by its time limit, and each told.
refused() {
    local name=$1 words=$2 status
    shift 2
    for status in "$@"; do
        ((status != 0 && status != 124)) || {
            echo "a rank ended with $status"
            return 1
        }
    done
    expect "$words" "$work/$name"/rank*.txt
    grep --no-filename --max-count=1 --extended-regexp -- "$words" "$work/$name/rank0.txt"
}

# by_srun NAME WORDS OPTION COMMAND: two ranks of a step.
by_srun() {
    local name=$1 words=$2 mpi=$3 status=0
    shift 3
    timeout 40 srun --quiet --nodes=2 --ntasks=2 --mpi="$mpi" --output="$work/$name/rank%t.txt" "$@" || status=$?
    refused "$name" "$words" "$status"
}

# by_hand NAME WORDS VARIABLES...: processes on this machine, each with its own variables.
by_hand() {
    local name=$1 words=$2 variables pid number=0 pids=() statuses=()
    shift 2
    for variables in "$@"; do
        # shellcheck disable=SC2086 # several variables
        env MASTER_ADDR=127.0.0.1 MASTER_PORT="$(master_port "$name")" $variables timeout 40 "${bad_train[@]}" --data "$work/photos" \
            >"$work/$name/rank$number.txt" 2>&1 &
        pids+=($!)
        # The first one is there first.
        sleep 0.5
        number=$((number + 1))
    done
    for pid in "${pids[@]}"; do
        local status=0
        wait "$pid" || status=$?
        statuses+=("$status")
    done
    refused "$name" "$words" "${statuses[@]}"
}

# One for each check, out of those that the cluster keeps for its steps.
master_port() {
    local first
    first=$(sed -n 's/^MpiParams=ports=\([0-9]*\)-.*/\1/p' "$SLURM_CONF")
    echo $((first + 100 + $(cksum <<<"$1" | cut -c 1-5) % 90))
}

# shellcheck disable=SC2016 # for the ranks' own shells
{
    check bad-mpi 45 by_srun bad-mpi '`srun` was not asked to start MPI programs: start with `srun --mpi=pmix`' none \
        "${bad_train[@]}" --data "$work/photos"
    python3 tests/slurm/subset.py "$photos" "$work/other-photos" 1999 500
    ln -s "$work/photos" "$work/data-0"
    ln -s "$work/other-photos" "$work/data-1"
    check bad-data 45 by_srun bad-data 'differs|ranks differ in' pmix \
        sh -c '"$@" --data "$0-$SLURM_PROCID"' "$work/data" "${bad_train[@]}"
    # The same name, other images: each rank stands in a folder of its own.
    mkdir "$work/node-0" "$work/node-1"
    ln -s "$work/photos" "$work/node-0/photos"
    ln -s "$work/other-photos" "$work/node-1/photos"
    check bad-content 45 by_srun bad-content 'ranks differ in images' pmix \
        sh -c 'cd "$0-$SLURM_PROCID" && "$@" --data /proc/self/cwd/photos' "$work/node" "${bad_train[@]}"
    check bad-config 45 by_srun bad-config 'differs|ranks differ in' pmix \
        sh -c '"$@" --set training.lr=0.01$SLURM_PROCID' sh "${bad_train[@]}" --data "$work/photos"
}
check bad-rank 30 by_hand bad-rank '`RANK=2` must be below `WORLD_SIZE=2`' 'RANK=2 WORLD_SIZE=2'
check bad-size 45 by_hand bad-size 'ranks disagree on their number' 'RANK=0 WORLD_SIZE=2' 'RANK=1 WORLD_SIZE=3'
check bad-twice 45 by_hand bad-twice 'rank 1 has come twice' \
    'RANK=0 WORLD_SIZE=3' 'RANK=1 WORLD_SIZE=3' 'RANK=1 WORLD_SIZE=3'
check bad-head 45 by_hand bad-head 'tried for [0-9]+ s to reach rank 0 at 192.0.2.1|did not come to rank 0' \
    'RANK=0 WORLD_SIZE=2' 'RANK=1 WORLD_SIZE=2 MASTER_ADDR=192.0.2.1'
# The first rank of the one holds the port, for longer than the others try; its second does not come.
check bad-port 45 by_hand bad-port 'cannot listen on port|belongs to another job|did not come to rank 0' \
    'RANK=0 WORLD_SIZE=2 HARVEST_JOB=moths HARVEST_RUN__LIMIT_SECONDS=15' 'RANK=0 WORLD_SIZE=2 HARVEST_JOB=bees' 'RANK=1 WORLD_SIZE=2 HARVEST_JOB=bees'

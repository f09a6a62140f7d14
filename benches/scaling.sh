#!/usr/bin/env bash
# Weak scaling from one rank to two over MPI, one thread each, against PyTorch's data parallelism over gloo; then the same
# over a line of 1 Gbit/s, and over one with delay. In turn, medians; a table and the lines of JSON it was made from.
#
# usage: benches/scaling.sh BINARY       built with `--features mpi`
#   OUT       folder for the table, the lines and the figures    benches/results
#   PYTHON    with torch and timm                                python3; without them only ours is measured
#   MODEL     preset                                             vit_tiny_patch2_32
#   BATCH     labelled images of a rank                          8
#   STEPS     measured steps of a round                          4
#   ROUNDS    of everything on this machine alone                2
#   EXTRA     further options of `bench scaling`                 --exact: every rank has the same work
#   GBIT      of the line                                        1
#   DELAY     milliseconds each way of the delayed line          1
#   PARTS     of: machine line delay sums                        all of them
#
# The line and the delay need root, iproute2 and network namespaces: two, joined by a cable whose ends pass GBIT. Where
# that cannot be had, the part says so and is left out.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lines.sh"
OUT=${OUT:-$here/results}
PYTHON=${PYTHON:-python3}
MODEL=${MODEL:-vit_tiny_patch2_32}
BATCH=${BATCH:-8}
STEPS=${STEPS:-4}
ROUNDS=${ROUNDS:-2}
EXTRA=${EXTRA---exact}
GBIT=${GBIT:-1}
DELAY=${DELAY:-1}
PARTS=${PARTS:-machine line delay sums}
[[ -x ${1:-} ]] || {
    echo "usage: $0 BINARY, built with: cargo build --release --features mpi" >&2
    exit 2
}
harvest=$(realpath "$1")
mkdir -p "$OUT" && OUT=$(realpath "$OUT") || exit 2
name=$OUT/$(date +%F)-scaling
lines=$name.jsonl
work=$(mktemp -d)
: >"$lines"
status=0
read -ra extra <<<"$EXTRA"
# Before anything runs, and before what nproc, too, obeys.
machine=$(what_machine)
# Open MPI refuses root and more ranks than it counts cores, unless told.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# Left to itself Open MPI sums over a tree where there are fewer than four ranks, which sends everything twice.
export OMPI_MCA_coll_libnbc_iallreduce_algorithm=ring
export RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1
# Both sides are free to use every core: two ranks on two cores have one each.
mpirun=(mpirun --bind-to none)

wanted() { [[ " $PARTS " == *" $1 "* ]]; }
peer=yes
"$PYTHON" -c 'import torch, timm' 2>"$work/peer.txt" || {
    peer=no
    echo "no peer: $(tail -n 1 "$work/peer.txt")" >&2
}

# measure KEY COMMAND...: appends the command's line to $work/KEY and to all lines.
measure() {
    local key=$1
    shift
    printf '%s $ %s\n' "$key" "$*" >&2
    if timeout --kill-after=5 180 "$@" >"$work/output" 2>"$work/errors" && grep '^{' "$work/output" >"$work/found"; then
        sed "s/^{/{\"part\":\"$key\",/" "$work/found" >>"$lines"
        cat "$work/found" >>"$work/$key"
    else
        echo "failed: $*" >&2
        tail -n 5 "$work/errors" >&2
        status=1
    fi
}
ours() { echo "$harvest" bench scaling --model "$MODEL" --batch "$BATCH" --steps "$STEPS" --device cpu --threads 1 "${extra[@]}"; }
theirs() { echo "$PYTHON" "$here/peers/ddp_step.py" "$MODEL" "$BATCH" --steps "$STEPS" --threads 1; }

# middle KEY FILE: the median over rounds.
middle() {
    [[ -f $2 ]] || return 0
    while IFS= read -r line; do
        printf '%s\n' "$line" >"$work/one"
        field "$1" "$work/one"
    done <"$2" | sort -g | awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

if wanted machine; then
    for ((round = 0; round < ROUNDS; round++)); do
        measure ours-1 "${mpirun[@]}" -n 1 $(ours)
        measure ours-2 "${mpirun[@]}" -n 2 $(ours)
        [[ $peer == no ]] || measure peer-1 $(theirs)
        [[ $peer == no ]] || measure peer-2 $(theirs) --launch 2
    done
fi

# Two namespaces, with hosts of their own names, since Open MPI takes ranks of one name for neighbours in memory.
a=harvest-a-$$ b=harvest-b-$$ relay= rank=
net=198.18.77
cleanup() {
    [[ -z $relay$rank ]] || kill $relay $rank 2>/dev/null
    ip netns del "$a" 2>/dev/null
    ip netns del "$b" 2>/dev/null
    ip link del hv-a 2>/dev/null
    ip link del hv-b 2>/dev/null
    ip link del hv-bridge 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

# What mpirun calls in place of ssh: HOST COMMAND...
cat >"$work/agent" <<AGENT
#!/bin/sh
shift
exec ip netns exec $b unshare --uts sh -c "hostname harvest-b; \$*"
AGENT
chmod +x "$work/agent"

# namespaces: makes both, addresses $net.1 and $net.2, and an end of a cable outside for each.
namespaces() {
    ip netns add "$a" && ip netns add "$b" &&
        ip link add hv-a mtu 9000 type veth peer name eth0 netns "$a" mtu 9000 &&
        ip link add hv-b mtu 9000 type veth peer name eth0 netns "$b" mtu 9000 || return 1
    local n
    for n in a b; do
        local space=${!n} number=1
        [[ $n == a ]] || number=2
        ip -n "$space" addr add "$net.$number/24" dev eth0 && ip -n "$space" link set lo up &&
            ip -n "$space" link set eth0 up && ip link set "hv-$n" up || return 1
    done
}

# pair KEY: ours and the peer's, a rank in each namespace.
pair() {
    local mpi=(env OMPI_MCA_btl=tcp,self "OMPI_MCA_btl_tcp_if_include=$net.0/24" "OMPI_MCA_oob_tcp_if_include=$net.0/24"
        OMPI_MCA_orte_keep_fqdn_hostnames=1 "OMPI_MCA_plm_rsh_agent=$work/agent")
    measure "ours-$1" ip netns exec "$a" unshare --uts sh -c 'hostname harvest-a; exec "$@"' sh \
        "${mpi[@]}" "${mpirun[@]}" --host "$net.1:1,$net.2:1" -n 2 $(ours)
    [[ $peer == yes ]] || return 0
    export WORLD_SIZE=2 MASTER_ADDR=$net.1 MASTER_PORT=29544 GLOO_SOCKET_IFNAME=eth0
    RANK=1 timeout --kill-after=5 180 ip netns exec "$b" $(theirs) >/dev/null 2>&1 &
    rank=$!
    RANK=0 measure "peer-$1" ip netns exec "$a" $(theirs)
    wait "$rank"
    rank=
    unset WORLD_SIZE MASTER_ADDR MASTER_PORT GLOO_SOCKET_IFNAME
}

reason=
if wanted line || wanted delay; then
    if ! namespaces 2>"$work/errors"; then
        reason="no line: $(tail -n 1 "$work/errors")"
    else
        for space in "$a" "$b"; do
            tc -n "$space" qdisc add dev eth0 root tbf rate "${GBIT}gbit" burst 256kb latency 50ms || reason="no tbf"
        done
        # Frames pass from one cable to the other: at once by a bridge, or late by the relay.
        if wanted line && [[ -z $reason ]]; then
            ip link add hv-bridge mtu 9000 type bridge && ip link set hv-a master hv-bridge &&
                ip link set hv-b master hv-bridge && ip link set hv-bridge up || reason="no bridge"
            [[ -n $reason ]] || pair line
            [[ -n $reason ]] || ! wanted sums ||
                measure sums-line ip netns exec "$a" unshare --uts sh -c 'hostname harvest-a; exec "$@"' sh \
                    env OMPI_MCA_btl=tcp,self "OMPI_MCA_btl_tcp_if_include=$net.0/24" "OMPI_MCA_oob_tcp_if_include=$net.0/24" \
                    "OMPI_MCA_plm_rsh_agent=$work/agent" "${mpirun[@]}" --host "$net.1:1,$net.2:1" -n 2 "$harvest" \
                    bench allreduce --json --wire f32 --factor 8 --max 32MiB --iterations 4
            ip link del hv-bridge 2>/dev/null
        fi
        if wanted delay && [[ -z $reason ]]; then
            for space in "$a" "$b"; do ip netns exec "$space" python3 "$here/delay.py" --plain eth0; done
            python3 "$here/delay.py" hv-a hv-b "$DELAY" &
            relay=$!
            pair delay
        fi
    fi
    [[ -z $reason ]] || echo "$reason" >&2
fi

if wanted sums; then
    measure sums "${mpirun[@]}" -n 2 "$harvest" bench allreduce --json --wire f32 --factor 4 --max 64MiB --iterations 8
fi

# row NAME OURS PEER: seconds, efficiency against one rank, share hidden.
row() {
    local one two its_one its_two
    one=$(middle seconds_per_step "$work/ours-1")
    two=$(middle seconds_per_step "$work/ours-$2")
    its_one=$(middle seconds_per_step "$work/peer-1")
    its_two=$(middle seconds_per_step "$work/peer-$2")
    efficiency() { awk -v a="$1" -v b="$2" 'BEGIN { if (a + 0 > 0 && b + 0 > 0) printf "%.1f %%", 100 * a / b; else printf "–" }'; }
    echo "| $1 | $(number "$two") | $(number "$its_two") | $(ratio "$its_two" "$two") | $(efficiency "$one" "$two") | $(efficiency "$its_one" "$its_two") | $(number "$(middle communication_seconds "$work/ours-$2")") | $(number "$(middle exposed_seconds "$work/ours-$2")") | $(number "$(middle hidden "$work/ours-$2")") | $(number "$(middle communication_seconds "$work/peer-$2")") | $(number "$(middle exposed_seconds "$work/peer-$2")") |"
}
{
    echo "# Scaling on one machine, $(date +%F)"
    echo
    echo "$machine; $("$harvest" --version); $(mpirun --version | sed -n 1p)$(
        [[ $peer == yes ]] && "$PYTHON" -c 'import torch; print(f"; PyTorch {torch.__version__}, gloo")'
    )."
    echo "Made by \`benches/scaling.sh\`: $MODEL, $BATCH labelled images a rank and as many unlabelled ones, one thread a rank, $STEPS steps"
    echo "a round, $ROUNDS rounds in turn on the machine alone and one over lines; medians. Options of ours: \`$EXTRA\`."
    echo
    echo "| ranks | ours s | peer s | ours faster by | ours efficiency | peer efficiency | ours sums s | ours exposed s | ours hidden | peer sums s | peer exposed s |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|"
    row "1" 1
    ! wanted machine || row "2, in memory" 2
    ! wanted line || [[ -n $reason ]] || row "2, $GBIT Gbit/s" line
    ! wanted delay || [[ -n $reason ]] || row "2, $GBIT Gbit/s and $DELAY ms each way" delay
    echo
    echo "Sums: ours while they were under way beside the backward pass, the peer's when nothing else runs. Exposed: ours what the"
    echo "step waited for, the peer's the step's time beyond that of the same step without synchronisation."
    [[ -z $reason ]] || { echo; echo "Not measured: $reason."; }
    echo
    cat "$work/ours-1" "$work/ours-2" "$work/sums" 2>/dev/null >"$work/all"
    if [[ -s $work/sums && -s $work/ours-2 ]]; then
        echo "## The model on this machine"
        echo
        "$harvest" bench predict --measured "$work/all" --devices 2 | sed '/^device  /,/^Weak-scaling/d;/^| change/,/^$/d'
    fi
} | tee "$name.md"
exit $status

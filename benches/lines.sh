# Sourced by the benches: reading the one line of JSON that each program prints. Needs only sed, awk and date.

# field KEY FILE: the value of KEY in the last line of FILE that is an object; nothing if there is none.
field() {
    sed -n 's/^{.*"'"$1"'": *\("\([^"]*\)"\|\([^,}]*\)\).*/\2\3/p' "$2" 2>/dev/null | tail -n 1
}

# ratio A B: A / B with two digits, or a dash.
ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (a + 0 > 0 && b + 0 > 0) printf "%.2f", a / b; else printf "–" }'
}

# number A [FORMAT]: for tables.
number() {
    awk -v a="$1" -v f="${2:-%.4g}" 'BEGIN { if (a == "") printf "–"; else printf f, a }'
}

# mean_of NUMBERS...: mean ± sample standard deviation.
mean_of() {
    printf '%s\n' "$@" | awk -v f="${FORMAT:-%.2f}" '
        NF { n++; s += $1; q += $1 * $1 }
        END {
            if (!n) { printf "–"; exit }
            m = s / n; v = n > 1 ? (q - n * m * m) / (n - 1) : 0
            printf f, m; if (n > 1) { printf " ± "; printf f, sqrt(v > 0 ? v : 0) }
        }'
}

# what_machine: a line about the processor and the system.
what_machine() {
    local model memory
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)
    memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo 2>/dev/null)
    echo "$(nproc) × ${model:-$(uname -m)}, $memory, load before the start $(cut -d' ' -f1 /proc/loadavg 2>/dev/null)"
}

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }

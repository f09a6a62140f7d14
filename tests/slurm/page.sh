# Jobs of the page: planned, handed in, watched while they wait, found again by another server, stopped and resumed. Part of
# scripts/slurm-check.

page=$work/page
secret='a word that all people of this check know'

# page_project: of small pictures in two classes, all labelled.
page_project() {
    [[ ! -d $page/project ]] || return 0
    mkdir -p "$page"
    python3 - "$page" <<'PYTHON'
import pathlib, struct, sys, zlib

page = pathlib.Path(sys.argv[1])

def png(level):
    rows = b"".join(b"\0" + bytes((level + x + 3 * y) % 256 for x in range(16) for _ in range(3)) for y in range(16))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

rows = ["path,label"]
for name, level in [("dark", 10), ("light", 140)]:
    (page / "images" / name).mkdir(parents=True)
    for number in range(12):
        (page / "images" / name / f"{number}.png").write_bytes(png(level + number))
        rows.append(f"{name}/{number}.png,{name}")
(page / "labels.csv").write_text("\n".join(rows) + "\n")
PYTHON
    "$harvest" init "$page/project" --images "$page/images" --classes dark,light
    "$harvest" scan --quiet --project "$page/project"
    "$harvest" label --project "$page/project" "$page/labels.csv"
    (umask 077 && echo "$secret" >"$page/secret")
}

# page_serve: a server, signed in to; sets $server and $address.
page_serve() {
    rm -f "$page/ready" "$page/cookies"
    "$harvest" serve --project "$page/project" --roots "$page" --port 0 --secret-file "$page/secret" \
        --ready-file "$page/ready" >>"$page/served.txt" 2>&1 &
    server=$!
    trap page_end EXIT
    until_true 30 'the page is there' test -s "$page/ready"
    local root
    root=$(sed 's,/login.*,,' "$page/ready")
    curl --silent --show-error --cookie-jar "$page/cookies" --data-urlencode "secret=$secret" --data name=ann "$root/login" \
        >/dev/null
    # Readers read to the end, here and below: who writes into a pipe that is closed early fails, now and then.
    address=$root/p/$(curl --silent --show-error --location --cookie "$page/cookies" "$root/" |
        grep --only-matching --extended-regexp 'project-[0-9a-f]{8}' | sed --quiet 1p)
}

page_end() {
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
}

# ask PATH [JSON]: reads, or sends.
ask() {
    local data=()
    [[ $# == 1 ]] || data=(--header 'content-type: application/json' --data "$2")
    curl --silent --show-error --cookie "$page/cookies" "${data[@]}" "$address/$1"
}

# of WORDS...: what is there in the JSON that comes in.
of() {
    python3 -c 'import functools, json, sys
value = functools.reduce(lambda value, key: value and value.get(key), sys.argv[1:], json.load(sys.stdin))
print("" if value is None else value)' "$@"
}

is_at() { [[ $(ask "api/jobs/$1" | of state) == "$2" ]]; }
steps_of() { [[ $(ask "api/jobs/$1" | of progress position) -gt $2 ]] 2>/dev/null; }

# page_train STEPS: sets $id.
page_train() {
    local settings
    settings=$(printf '{"model.name":"resnet8","model.image_size":"16","run.device":"cpu","training.steps":"%s",
        "training.batch":"2","training.checkpoint_every":"10","training.warmup_steps":"0"}' "$1")
    ask api/jobs "{\"kind\":\"train\",\"where\":\"slurm\",\"slurm\":{\"time\":\"10\"},\"settings\":{\"set\":$settings}}" \
        >"$page/answer"
    id=$(of id <"$page/answer")
    [[ -n $id ]] || {
        cat "$page/answer"
        return 1
    }
}

queue_position() { [[ $(ask "api/jobs/$1" | of queue position) == "$2" ]]; }

page_waits() {
    local first second words
    page_project
    page_serve
    first=$(sbatch --parsable --nodes=4 --exclusive --output=/dev/null --wrap='sleep 600')
    until_true 20 'the nodes are taken' is_state "$first" RUNNING
    second=$(sbatch --parsable --nodes=4 --exclusive --output=/dev/null --wrap=true)
    page_train 20
    until_true 20 'it is the second in the queue' queue_position "$id" 2
    # Another server, which was told nothing.
    page_end
    page_serve
    until_true 10 'the second server sees it wait' is_at "$id" waiting
    until_true 10 'and where' queue_position "$id" 2
    words=$(ask "api/jobs/$id" | of queue words)
    [[ $words == *'before it'* || $words == *'machines to become free'* ]] || {
        echo "the reason is: $words"
        return 1
    }
    scancel "$first" "$second"
    until_true 60 'it is done' is_at "$id" 'done'
    [[ -f $page/project/runs/$(ask "api/jobs/$id" | of run)/DONE ]]
    ask "api/jobs/$id/details" | of slurm >"$page/slurm"
    expect 'JobState=COMPLETED' "$page/slurm"
    echo "seen at place 2 ($words) by two servers, then done"
}
check page_waits 120 page_waits

page_stops() {
    page_project
    page_serve
    page_train 1000
    until_true 60 'it trains' steps_of "$id" 30
    ask "api/jobs/$id/stop" '{}' >/dev/null
    until_true 60 'it is stopped' is_at "$id" stopped
    ask "api/jobs/$id/resume" '{}' >/dev/null
    until_true 120 'it is done' is_at "$id" 'done' || {
        ask "api/jobs/$id"
        return 1
    }
    expect 'going on after step' "$page/project/jobs/$id/output.txt"
    [[ $(find "$page/project/runs" -name DONE | wc -l) -ge 1 ]]
    echo 'stopped in the middle, resumed, done'
}
check page_stops 240 page_stops

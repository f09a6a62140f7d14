#!/usr/bin/env python3
"""The runs of a sweep on Fashion-MNIST beside the package semilearn (USB), each on the same labelled images.

usage: semilearn.py SWEEP_FOLDER [--out FILE.md] [--algorithms freematch fixmatch mixmatch] [--labels 10 4]
                    [--minutes 30] [--threads 2] [--python PYTHON]

SWEEP_FOLDER is what `harvest sweep configs/sweeps/fashion_mnist.toml` leaves. For each of its finished runs, in the order of
--labels, seeds and algorithms, the package's own `train_step` is run for as many steps with the same labelled images, batch,
rate, averaged weights and decay of running averages (benches/peers/semilearn_fashion.py), until --minutes are used up. What an
earlier call left in --out is not run again.
Needs what that program needs. Writes a table, and the lines of JSON it was made from beside it.
"""
import argparse, csv, json, pathlib, statistics, subprocess, sys, tempfile, time

PEER = pathlib.Path(__file__).parent / "peers" / "semilearn_fashion.py"


def labelled_images(run):
    """Positions of a run's labelled images among the training images."""
    with open(run / "inputs" / "images.jsonl") as lines:
        next(lines)  # the header
        paths = [json.loads(line).get("path", "") for line in lines]
    labelled = json.loads((run / "inputs" / "split.json").read_text())["labelled"]
    return [paths[index].rsplit("#", 1)[1] for index in labelled]


def decay(steps):
    """Ours, where a recipe does not say: see Problem::decay."""
    return 1 - 1 / min(max(steps / 50, 10), 1000)


def key(row):
    return row["algorithm"], int(row["labels_per_class"]), int(row["seed"]), int(row["steps"])


def spread(values):
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sweep", type=pathlib.Path)
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("semilearn.md"))
    ap.add_argument("--algorithms", nargs="+", default=["freematch", "fixmatch", "mixmatch"])
    ap.add_argument("--labels", nargs="+", type=int, default=[10, 4])
    ap.add_argument("--minutes", type=float, default=30)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--python", default=sys.executable)
    a = ap.parse_args()

    with open(a.sweep / "results.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "done"]
    wanted = [row for row in rows if row["algorithm"] in a.algorithms and int(row["labels_per_class"]) in a.labels]
    wanted.sort(key=lambda r: (a.labels.index(int(r["labels_per_class"])), int(r["seed"]), a.algorithms.index(r["algorithm"])))
    known = a.out.with_suffix(".jsonl")
    earlier = [json.loads(line) for line in known.read_text().splitlines()] if known.exists() else []
    started, longest, lines = time.time(), 0.0, []
    for row in wanted:
        same = next((line for line in earlier if key(line) == key(row)), None)
        if same:
            lines.append(same | dict(ours=float(row["accuracy"]), ours_seconds=float(row["seconds"])))
            continue
        if time.time() - started + longest > 60 * a.minutes:
            print(f"{a.minutes} minutes are used up; {len(wanted) - len(lines)} runs are left out", file=sys.stderr)
            break
        begun, steps = time.time(), int(row["steps"])
        run = next(folder for folder in a.sweep.rglob(row["run"]) if (folder / "inputs").is_dir())
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as labels:
            labels.write("\n".join(labelled_images(run)))
            labels.flush()
            command = [a.python, str(PEER), "--algorithm", row["algorithm"], "--labels", labels.name, "--seed", row["seed"],
                       "--size", "28", "--steps", str(steps), "--ema-p", str(decay(steps)), "--threads", str(a.threads)]
            print("$", *command[1:], file=sys.stderr)
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        theirs = json.loads(answer.strip().splitlines()[-1])
        lines.append(dict(algorithm=row["algorithm"], labels_per_class=int(row["labels_per_class"]), seed=int(row["seed"]),
                          steps=steps, ours=float(row["accuracy"]), ours_seconds=float(row["seconds"]), peer=theirs["peer"],
                          theirs=theirs["accuracy"], their_seconds=theirs["seconds"]))
        print(json.dumps(lines[-1]), file=sys.stderr)
        longest = max(longest, time.time() - begun)
        save(lines, earlier, a)  # after each, so that a run cut short is not lost
    if lines:
        save(lines, earlier, a)
        print(a.out.read_text())


def save(lines, earlier, a):
    """The table of `lines`; the lines themselves, and with them earlier ones that were not asked for this time."""
    known = {key(line) for line in lines}
    kept = lines + [line for line in earlier if key(line) not in known]
    a.out.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    a.out.write_text(table(lines, a))


def table(lines, a):
    text = [f"# Fashion-MNIST beside {lines[0]['peer']}, {time.strftime('%Y-%m-%d')}", "",
            f"{lines[0]['steps']} steps of 32 + 4 × 32 images of 28 × 28, the small residual network, the same labelled images and",
            f"decay of running averages ({decay(lines[0]['steps']):g}) on both sides. {a.threads} threads. Made by `benches/semilearn.py`.", "",
            "| labels per class | algorithm | seeds | ours % | semilearn % | difference | behind by more than the spread |",
            "|---|---|---|---|---|---|---|"]
    for labels in a.labels:
        for algorithm in a.algorithms:
            own = [l for l in lines if (l["algorithm"], l["labels_per_class"]) == (algorithm, labels)]
            if not own:
                continue
            ours, theirs = [l["ours"] for l in own], [l["theirs"] for l in own]
            difference = statistics.mean(ours) - statistics.mean(theirs)
            deviation = max((statistics.stdev(v) for v in (ours, theirs) if len(v) > 1), default=0)
            behind = "yes" if -difference > deviation else "no"
            text.append(f"| {labels} | {algorithm} | {len(own)} | {spread(ours)} | {spread(theirs)} | {100 * difference:+.2f} | {behind} |")
    text += ["", "| labels per class | algorithm | seed | ours % | semilearn % |", "|---|---|---|---|---|"]
    text += [f"| {l['labels_per_class']} | {l['algorithm']} | {l['seed']} | {100 * l['ours']:.2f} | {100 * l['theirs']:.2f} |"
             for l in lines]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Looks into run folders.

Usage: look.py result RUNS                  accuracy, labelled images and starts of the one run in RUNS
       look.py whole RUNS                   fails unless every checkpoint in RUNS is complete
       look.py compare START RUNS RUNS TOLERANCE
                                            fails if any tensor of the two is apart by more than TOLERANCE of the way it has
                                            come since the start

Standard library only.
"""

import csv
import json
import struct
import sys
from array import array
from pathlib import Path


def only_run(runs):
    folders = [path.parent for path in Path(runs).glob("*/config.toml")]
    assert len(folders) == 1, f"{runs} has {len(folders)} runs, not one"
    return folders[0]


def result(runs):
    run = only_run(runs)
    assert (run / "DONE").exists(), f"{run} is not finished"
    scores = json.loads((run / "result.json").read_text())["test"]
    with open(run / "labels.csv") as file:
        labelled = sum(row["abstained"] == "false" for row in csv.DictReader(file))
    sessions = json.loads((run / "environment.json").read_text())["sessions"]
    print(f"{100 * scores['accuracy']:.2f} {labelled} {len(sessions)}")


def tensors(path):
    """Name and numbers of every tensor of single precision; the file must end where the last one does."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    assert len(data) == 8 + length + max(ends, default=0), f"{path} is torn: {len(data)} bytes"
    body = data[8 + length :]
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "F32":
            found[name] = array("f", body[begin:end])
    return found


def checkpoints(run):
    return [path for path in (run / "checkpoints").glob("step-*") if path.is_dir()]


def whole(runs):
    run = only_run(runs)
    newest = (run / "checkpoints" / "last").read_text().strip()
    found = checkpoints(run)
    assert newest in [path.name for path in found], f"{run}: the newest checkpoint, {newest}, is missing"
    for path in found:
        state = json.loads((path / "state.json").read_text())
        assert path.name == f"step-{state['step']:09}", f"{path} is of step {state['step']}"
        for part in ["model", "ema", "optimizer", "algorithm"]:
            tensors(path / f"{part}.safetensors")
    print(f"{len(found)} checkpoints up to {newest}")


def newest(runs):
    checkpoints = only_run(runs) / "checkpoints"
    return checkpoints / (checkpoints / "last").read_text().strip()


def furthest(left, right):
    return max((abs(a - b) for a, b in zip(left, right, strict=True)), default=0.0)


def compare(start, one, other, tolerance):
    start, one, other = (newest(runs) for runs in (start, one, other))
    assert one.name == other.name, f"{one.name} is not {other.name}"
    worst, where, moved = 0.0, "nowhere", 0
    for part in ["model", "ema"]:
        begun, left, right = (tensors(path / f"{part}.safetensors") for path in (start, one, other))
        assert begun.keys() == left.keys() == right.keys(), f"{part} has other tensors"
        for name, values in left.items():
            way, apart = furthest(values, begun[name]), furthest(values, right[name])
            assert apart == apart, f"{part} {name} holds what is no number"
            # What a number of single precision can tell of so large a weight.
            seen = 1e-5 * max(map(abs, values), default=0.0)
            moved += way > seen
            if apart > worst * max(way, seen):
                worst, where = apart / max(way, seen), f"{part} {name}"
    assert moved > 20, f"only {moved} tensors have moved: nothing was trained"
    print(f"apart by {worst:.1e} of the way, most in {where}; {moved} tensors have moved")
    if not worst <= tolerance:
        sys.exit(f"that is more than {tolerance}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["result", runs]:
            result(runs)
        case ["whole", runs]:
            whole(runs)
        case ["compare", start, one, other, tolerance]:
            compare(start, one, other, float(tolerance))
        case _:
            sys.exit(__doc__)

#!/usr/bin/env python3
"""What choosing the images to label is worth, on Fashion-MNIST.

An expert who knows all answers goes through the images in the order that `harvest sample` gives and labels the first N of
each class, so that every way of choosing has the same number of labels of each class. Then FreeMatch learns from them and
from all images, and is tested on pictures it has never seen. Two rounds: half of the labels by `typical`, a model, the other
half by what it doubts. Also compares the ways of clustering, against the true classes.

`--labels` without a number compares only the ways of clustering.

    benches/selection.py HARVEST [--images 10000] [--test 4000] [--steps 400] [--seeds 3] [--labels 1 4 10] [--simclr 15]
"""

import argparse
import csv
import gzip
import json
import pathlib
import resource
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
import zlib

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
WAYS = ["random", "clusters", "typical", "coverage", "two rounds"]


def read(name):
    for path in (SOURCE / f"{name}.gz", SOURCE / name):
        if path.exists():
            return gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    raise SystemExit(f"there is no {name} in {SOURCE}; install dataset-fashion-mnist")


def png(pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[28 * row : 28 * row + 28] for row in range(28))
    head = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def pictures(folder, part, count):
    """Writes the first `count` pictures; returns the class of each by file name."""
    images, labels = read(f"{part}-images-idx3-ubyte")[16:], read(f"{part}-labels-idx1-ubyte")[8:]
    folder.mkdir()
    truth = {}
    for i in range(count):
        name = f"{i:05}.png"
        (folder / name).write_bytes(png(images[784 * i : 784 * i + 784]))
        truth[name] = CLASSES[labels[i]]
    return truth


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.truth = pictures(folder / "pictures", "train", options.images)
        self.test = pictures(folder / "unseen", "t10k", options.test)

    def run(self, *arguments):
        command = [str(self.options.harvest), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def cluster(self, seed):
        """A project whose images are clustered."""
        project = self.folder / f"clustered-{seed}"
        self.run("init", project, "--images", self.folder / "pictures", "--classes", ",".join(CLASSES))
        began = time.time()
        self.settings = ["--model", "resnet8", "--set", "model.image_size=28", "--quiet", "--seed", seed,
                         "--set", f"clustering.simclr.epochs={self.options.simclr}"]
        self.run("cluster", "--project", project, *self.settings)
        print(f"seed {seed}: clustered in {time.time() - began:.0f} s", flush=True)
        scores, seconds = self.judged(project)
        pixels = ["--set", "clustering.features=pixels", "--method", "kmeans"]
        scores["pixels"] = self.judged(project, pixels)[0]["kmeans"]
        print(f"seed {seed}: " + ", ".join(f"{way} {found[0]:.2f} %" for way, found in scores.items()), flush=True)
        return project, scores, seconds

    def judged(self, project, more=()):
        """Matched accuracy in per cent, NMI and ARI of every way of clustering, once all labels are known."""
        work = self.folder / "judged"
        shutil.copytree(project, work)
        table = work / "all.csv"
        table.write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in self.truth.items()))
        self.run("label", table, "--project", work, "--who", "bench")
        self.run("cluster", "--project", work, *self.settings, *more)
        run = sorted((work / "clusters").iterdir())[-1]
        summary = json.loads((run / "clusters.json").read_text())
        if self.options.figure and not more:
            shutil.copy(run / "confusion.svg", self.options.figure)
        shutil.rmtree(work)
        stable = [f"{way['found_by']} {way['quality']['stability']:.3f}" for way in summary["candidates"]
                  if way["quality"]["stability"] is not None]
        if stable:
            print(f"taken: {summary['found_by']}; stability: {', '.join(stable)}", flush=True)
        return {way["found_by"]: [100 * way["scores"]["accuracy"], way["scores"]["nmi"], way["scores"]["ari"]]
                for way in summary["candidates"]}, summary["seconds"]

    def label(self, project, by, wanted, seed, run=None):
        """Labels the first images of each class until each has `wanted`; returns how many were looked at."""
        have = self.labelled(project)
        more = ["--run", run] if run else []
        count = min(self.options.images, 400 if by != "typical" else 300)
        self.run("sample", "--project", project, "--by", by, "-n", count, "--seed", seed, "--quiet", *more)
        table = sorted((project / "rounds").glob("*.csv"))[-1]
        rows, looked = list(csv.DictReader(table.open())), 0
        for row in rows:
            if all(have.get(name, 0) >= wanted for name in CLASSES):
                break
            looked += 1
            name = self.truth[row["path"]]
            if have.get(name, 0) < wanted:
                have[name] = have.get(name, 0) + 1
                row["label"] = name
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        self.run("label", table, "--project", project, "--who", "bench")
        missing = [name for name in CLASSES if have.get(name, 0) < wanted]
        if missing:
            # By lot, as an expert would look on: the same number of labels whatever the way.
            looked += self.label(project, "random", wanted, seed + 1000)
        return looked

    def labelled(self, project):
        counts = {}
        for table in (project / "rounds").glob("*.csv"):
            for row in csv.DictReader(table.open()):
                if row["label"]:
                    counts[row["label"]] = counts.get(row["label"], 0) + 1
        return counts

    def train(self, project, seed):
        self.run(
            "train", "--project", project, "--algorithm", "freematch", "--model", "resnet8", "--quiet",
            *sum((["--set", setting] for setting in [
                "model.image_size=28", "data.evaluation_fraction=0", f"training.steps={self.options.steps}",
                "training.batch=32", "training.unlabelled_ratio=4", "training.lr=2e-3", "training.weight_decay=5e-4",
                "training.layer_decay=1.0", "training.warmup_steps=0", "training.ema=0.99",
                "training.checkpoint_every=100000", f"training.seed={seed}",
            ]), []))
        return sorted((project / "runs").glob("*-freematch-*"))[-1]

    def accuracy(self, run):
        table = self.folder / "predicted.csv"
        self.run("predict", self.folder / "unseen", "--model", run, "--out", table)
        rows = list(csv.DictReader(table.open()))
        right = sum(self.test[pathlib.Path(row["path"]).name] == row["class"] for row in rows)
        return 100 * right / len(rows)

    def one(self, clustered, way, wanted, seed):
        project = self.folder / "work"
        shutil.copytree(clustered, project)
        if way == "two rounds":
            looked = self.label(project, "typical", max(wanted // 2, 1), seed)
            if wanted > 1:
                looked += self.label(project, "uncertain", wanted, seed, self.train(project, seed))
        else:
            looked = self.label(project, way, wanted, seed)
        accuracy = self.accuracy(self.train(project, seed))
        shutil.rmtree(project)
        print(f"seed {seed}, {wanted} of each class, {way}: {accuracy:.2f} % ({looked} looked at)", flush=True)
        return accuracy, looked


def spread(values):
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harvest", type=pathlib.Path)
    for name, value in [("images", 10000), ("test", 4000), ("steps", 400), ("seeds", 3), ("simclr", 15)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--labels", type=int, nargs="*", default=[1, 4, 10])
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--figure", help="where to put the confusion matrix of the last seed (SVG)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, pathlib.Path(folder))
        found, seconds, scores, projects = {}, {}, {}, []
        for seed in range(options.seeds):
            project, ways, times = bench.cluster(seed)
            projects.append(project)
            for part, time_taken in times.items():
                seconds.setdefault(part, []).append(time_taken)
            for way, values in ways.items():
                scores.setdefault(way, []).append(values)
        print("\n| clusters | matched accuracy % | NMI | ARI |\n|---|---|---|---|")
        for way, values in scores.items():
            print(f"| {way} | " + " | ".join(spread([row[i] for row in values]) for i in range(3)) + " |")
        print("\nseconds: " + ", ".join(f"{part} {spread(times)}" for part, times in seconds.items()))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"most memory of a process so far: {peak:.0f} MiB", flush=True)
        if not options.labels:
            return
        for wanted in options.labels:
            for way in options.ways:
                for seed, project in enumerate(projects):
                    found.setdefault((wanted, way), []).append(bench.one(project, way, wanted, seed))
    print("\n| way | " + " | ".join(f"{wanted} of each class" for wanted in options.labels) + " |")
    print("|---|" + "---|" * len(options.labels))
    for way in options.ways:
        cells = [spread([accuracy for accuracy, _ in found[wanted, way]]) for wanted in options.labels]
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

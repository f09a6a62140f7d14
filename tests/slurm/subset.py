#!/usr/bin/env python3
"""Writes the first pictures of an MNIST-like set as a set of its own, real and small enough for a check.

Usage: subset.py IDX-FOLDER OUT TRAINING TEST
"""

import gzip
import sys
from pathlib import Path


def cut(source, target, count):
    with gzip.open(source) as file:
        header = file.read(4)
        sizes = [file.read(4) for _ in range(header[3])]
        item = 1
        for size in sizes[1:]:
            item *= int.from_bytes(size, "big")
        items = file.read(item * count)
    assert len(items) == item * count, f"{source} has fewer than {count}"
    with gzip.open(target, "wb", compresslevel=1) as file:
        file.write(header + count.to_bytes(4, "big") + b"".join(sizes[1:]) + items)


def main(source, target, training, test):
    target.mkdir(parents=True)
    for part, count in [("train", training), ("t10k", test)]:
        for kind in ["images-idx3", "labels-idx1"]:
            name = f"{part}-{kind}-ubyte.gz"
            cut(source / name, target / name, count)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

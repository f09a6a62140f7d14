#!/usr/bin/env python3
"""Writes photographs of Fashion-MNIST to train a small network on, and others as files of several kinds, sizes and shapes.

Usage: pictures.py IDX-FOLDER OUT, which gets the folders `training` (with a folder for each class) and `new`.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TRAINING = 1200
NEW = 64
# Suffix, size and how it is written. One of them loses something; Pillow decodes that one a grey level off.
KINDS = [
    (".png", (28, 28), {}),
    (".bmp", (45, 70), {}),
    (".webp", (200, 150), {"lossless": True}),
    (".tiff", (64, 64), {}),
    (".jpg", (160, 120), {"quality": 92}),
]


def read(path, header):
    with gzip.open(path) as file:
        shape = np.frombuffer(file.read(header), ">u4")[1:]
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def main(idx, out):
    photos, labels = read(idx / "train-images-idx3-ubyte.gz", 16), read(idx / "train-labels-idx1-ubyte.gz", 8)
    for number in range(TRAINING):
        folder = out / "training" / f"class_{labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[number]).save(folder / f"{number:04}.png")
    photos = read(idx / "t10k-images-idx3-ubyte.gz", 16)
    (out / "new").mkdir()
    for number in range(NEW):
        suffix, size, how = KINDS[number % len(KINDS)]
        picture = Image.fromarray(photos[number])
        if number % 2:
            # Colours of its own, as photographs have.
            tint = np.array([255, 255 - 37 * number % 64, 255 - 53 * number % 64])
            picture = Image.fromarray((photos[number][..., None] * tint / 255).astype(np.uint8))
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        picture.save(out / "new" / f"{number:03}{suffix}", **how)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

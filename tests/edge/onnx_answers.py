#!/usr/bin/env python3
"""Classifies pictures with a bundle's model.onnx by ONNX Runtime, as its MODEL_CARD.md tells a stranger to.

Prints a line `path,class,confidence,abstained` for each. Usage: onnx_answers.py BUNDLE PICTURE...
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main(bundle, pictures):
    config = json.loads((bundle / "config.json").read_text())
    how = config["preprocessing"]
    confidence = config.get("confidence") or {}
    least = confidence.get("reject_below") or 0.0
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    lines = csv.writer(sys.stdout, lineterminator="\n")
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        picture = picture.resize((how["size"],) * 2, Image.Resampling[how["resize"].upper()])
        [logits] = session.run(["logits"], {"images": np.asarray(picture)[None]})
        powers = np.exp((logits[0] - logits[0].max()).astype(np.float64) / confidence.get("temperature", 1.0))
        probabilities = powers / powers.sum()
        best = int(probabilities.argmax())
        abstained = "true" if probabilities[best] < least else "false"
        lines.writerow([path, config["classes"][best], f"{probabilities[best]:.6f}", abstained])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

#!/usr/bin/env python3
"""Loads exported bundles with timm, torchvision and onnxruntime and compares their logits with the program's own, and
the program's logits by networks that `save.py` saved with theirs.

Usage: check.py DIR, where `HARVEST_INTERCHANGE=DIR cargo test --release --test interchange` has written after `save.py
DIR/saved`. Leaves with 1 if anything disagrees, with 2 if a module is missing.
"""

import json
import sys
from pathlib import Path

try:
    import numpy as np
    import onnx
    import onnxruntime
    import timm
    import torch
    import torchvision
    from safetensors.torch import load_file
except ModuleNotFoundError as error:
    print(f"{error}. Install numpy, onnx, onnxruntime, timm, torch, torchvision and safetensors, or name a Python that "
          "has them: PYTHON=…/bin/python scripts/interchange", file=sys.stderr)
    sys.exit(2)

# Sums of thousands of f32 in another order; in units of the largest logit.
TOLERANCE = 1e-4
# Of seven, that the images must be divided into.
CLASSES = 4


def foreign_network(name, classes):
    """The same network as other libraries build it."""
    if name == "vit_tiny_patch2_32":
        return timm.models.vision_transformer.VisionTransformer(
            img_size=32, patch_size=2, embed_dim=192, depth=12, num_heads=3, num_classes=classes
        )
    if not name.startswith("resnet"):
        size = {"img_size": 224} if "dinov2" in name else {}
        return timm.create_model(name, pretrained=False, num_classes=classes, **size)
    small = name.endswith("_32")
    network = getattr(torchvision.models, name.removesuffix("_32"))(num_classes=classes)
    if small:
        network.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        network.maxpool = torch.nn.Identity()
    return network


def torch_logits(name, bundle, images, config):
    network = foreign_network(name, len(config["classes"]))
    network.load_state_dict(load_file(bundle / "model.safetensors"), strict=True)
    network.eval()
    normalisation = config["preprocessing"]["normalisation"]
    mean, std = (torch.tensor(normalisation[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        inputs = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
        return network(inputs).numpy()


def onnx_logits(path, images, batch):
    """Logits, after checking the file and that the probabilities are theirs."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    opset = {entry.domain: entry.version for entry in model.opset_import}[""]
    if opset < 17:
        sys.exit(f"{path}: operator set {opset}")
    options = onnxruntime.SessionOptions()
    if "int8" in path.name:
        # With all its optimisations onnxruntime rounds what enters these layers to eight bits, too, which is faster but
        # not what the file says: its logits then differ by some thousandths.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = [
        session.run(["logits", "probabilities"], {"images": images[start : start + batch]})
        for start in range(0, len(images), batch)
    ]
    logits, probabilities = (np.concatenate(part) for part in zip(*rows))
    softmax = torch.softmax(torch.from_numpy(logits), 1).numpy()
    if not np.allclose(softmax, probabilities, atol=1e-5):
        sys.exit(f"{path}: the probabilities are not the softmax of the logits")
    return logits


def compare(name, program, expected, found):
    """Whether two tables of logits agree; says so."""
    off = np.abs(found - expected).max() / np.abs(expected).max()
    same = (found.argmax(1) == expected.argmax(1)).mean()
    # Of a network that always says the same nothing can be learned.
    classes = len(set(expected.argmax(1).tolist()))
    fine = off <= TOLERANCE and same == 1.0 and classes >= CLASSES
    print(f"{'ok  ' if fine else 'FAIL'} {name:29} {program:26} {len(expected)} images of {classes} classes: "
          f"logits off by {off:.1e}, same class {100 * same:.0f} %")
    return fine


def ours(bundle):
    """Whether other programs answer as we do; the name of each and what it says."""
    name = bundle.parent.name
    config = json.loads((bundle / "config.json").read_text())
    reference = load_file(bundle.parent / "reference.safetensors")
    images = reference["images"]
    yield name, "torch", reference["logits"], torch_logits(name, bundle, images, config)
    for file, key in (("model.onnx", "logits"), ("model.int8.onnx", "int8_logits")):
        for batch in (1, len(images)):
            yield name, f"{file}, batch {batch}", reference[key], onnx_logits(bundle / file, images.numpy(), batch)


def theirs(folder):
    """Whether we answer as the programs that saved a network: an answer for each of its files."""
    expected = load_file(folder / "reference.safetensors")["logits"]
    answers = load_file(folder / "answers.safetensors")
    files = {path.name for path in folder.iterdir()} - {"reference.safetensors", "answers.safetensors"}
    if not files or files != set(answers):
        sys.exit(f"{folder}: {sorted(files)} were saved, {sorted(answers)} answered")
    for file in sorted(files):
        yield folder.name, f"we load {file}", expected, answers[file].numpy()


def main(folder):
    bundles, saved = sorted(folder.glob("*/bundle")), sorted(folder.glob("saved/*"))
    if not bundles or not saved:
        sys.exit(f"no bundles or no saved networks in {folder}")
    comparisons = [entry for bundle in bundles for entry in ours(bundle)]
    comparisons += [entry for each in saved for entry in theirs(each)]
    fine = [compare(name, program, expected.numpy(), found) for name, program, expected, found in comparisons]
    print(f"{sum(fine)} of {len(fine)} comparisons agree")
    return 0 if all(fine) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))

#!/usr/bin/env python3
"""Saves networks of timm and torchvision with random weights in the ways they are published, for our program to load.

Usage: save.py DIR, in which each network gets a folder with `reference.safetensors` (64 images as bytes, and its logits)
and its weights in several files. `check.py` compares what `tests/interchange` answers.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file

CLASSES = 7
IMAGES = 64
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def pictures(size):
    """Pictures that differ in more than their noise: each has colours, stripes and a slope of its own."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    images = []
    for _ in range(IMAGES):
        angle, width = random.uniform(0, np.pi), random.uniform(0.03, 0.6)
        stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / width)[..., None]
        slope = (x - 0.5)[..., None] * random.uniform(-1, 1, 3)
        image = random.uniform(0, 1, 3) + stripes * random.uniform(-0.5, 0.5, 3) + slope
        images.append(255 * np.clip(image + random.normal(0, 0.05, image.shape), 0, 1))
    return torch.from_numpy(np.stack(images).round().astype(np.uint8))


def randomised(network, inputs):
    """Biases, factors and running statistics that are not a new network's, and a classifier that names every class."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Those of these images, so that signals neither vanish nor explode, and then moved.
            module.momentum = None
    network.train()
    with torch.no_grad():
        for p in network.parameters():
            if p.dim() == 1:
                p += 0.2 * torch.rand(p.shape, generator=generator) - 0.1
        network(inputs[::4])
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean += module.running_var.sqrt() * 0.1 * torch.randn(
                    module.running_mean.shape, generator=generator)
                module.running_var *= 0.9 + 0.2 * torch.rand(module.running_var.shape, generator=generator)
        network.eval()
        head = network.fc if hasattr(network, "fc") else network.get_classifier()
        deviation, mean = torch.std_mean(network(inputs), 0)
        head.weight /= deviation[:, None]
        head.bias.copy_((head.bias - mean) / deviation)
        return network(inputs)


def huggingface(weights):
    """Names of transformers' ViTForImageClassification, as its published checkpoints have them."""
    parts = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    inside = {
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }
    renamed = {}
    for name, tensor in weights.items():
        stem, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            renamed[parts[name] if name in parts else f"{parts[stem]}.{kind}"] = tensor
            continue
        block, part = stem.split(".", 2)[1:]
        layer = f"vit.encoder.layer.{block}"
        if part == "attn.qkv":
            for theirs, third in zip(("query", "key", "value"), tensor.chunk(3)):
                renamed[f"{layer}.attention.attention.{theirs}.{kind}"] = third.clone()
        else:
            renamed[f"{layer}.{inside[part]}.{kind}"] = tensor
    return renamed


def prefixed(weights, prefix):
    return {prefix + name: tensor for name, tensor in weights.items()}


def save(folder, name, number, weights):
    """In every way for one network, plain and one other way for the rest."""
    ways = [
        lambda: torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False),
        lambda: torch.save({"epoch": 3, "state_dict": prefixed(weights, "module."), "optimizer": {"state": {}}},
                           folder / "module.pt"),
        lambda: save_file(weights, folder / "plain.safetensors", metadata={"format": "pt"}),
        lambda: torch.save({"model": prefixed(weights, "backbone.")}, folder / "backbone.bin"),
    ]
    torch.save(weights, folder / "zip.pth")
    every = name == "vit_tiny_patch16_224"
    for way in ways if every else ways[number % len(ways):][:1]:
        way()
    if every:
        save_file(huggingface(weights), folder / "huggingface.safetensors", metadata={"format": "pt"})


def main(out):
    networks = {
        "vit_tiny_patch16_224": timm.create_model,
        "vit_small_patch14_reg4_dinov2": lambda name, **how: timm.create_model(name, img_size=224, **how),
        "resnet18": lambda name, num_classes: torchvision.models.get_model(name, num_classes=num_classes),
        "resnet50": lambda name, num_classes: torchvision.models.get_model(name, num_classes=num_classes),
        "efficientnet_lite0": timm.create_model,
        "mobilenetv2_100": timm.create_model,
        "convnext_tiny": timm.create_model,
    }
    images = pictures(224)
    inputs = (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    for seed, (name, build) in enumerate(networks.items()):
        torch.manual_seed(seed)
        network = build(name, num_classes=CLASSES)
        logits = randomised(network, inputs)
        folder = out / name
        folder.mkdir(parents=True)
        save(folder, name, seed, network.state_dict())
        save_file({"images": images, "logits": logits}, folder / "reference.safetensors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

"""Writes the weight files beside it, which `models/tests/weight_files.rs` reads.

torch, timm, torchvision and safetensors, CPU; `python generate.py`. The networks are tiny vision transformers with seeded
random weights; `expected.safetensors` holds their weights under timm's names, an image, and the logits that timm and
torchvision compute.
"""

import argparse
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

HERE = Path(__file__).parent
SHAPE = dict(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2, num_classes=5)


def randomised(net, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return net.eval()


def huggingface(weights):
    """timm's names as transformers.ViTForImageClassification has them."""
    renamed = {}
    for name, t in weights.items():
        if ".attn.qkv." in name:
            block, kind = name.split(".attn.qkv.")
            for part, third in zip(["query", "key", "value"], t.chunk(3)):
                renamed[f"vit.encoder.layer.{block[7:]}.attention.attention.{part}.{kind}"] = third.clone()
            continue
        for ours, theirs in [
            ("cls_token", "vit.embeddings.cls_token"),
            ("pos_embed", "vit.embeddings.position_embeddings"),
            ("patch_embed.proj.", "vit.embeddings.patch_embeddings.projection."),
            (".attn.proj.", ".attention.output.dense."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            ("blocks.", "vit.encoder.layer."),
            ("head.", "classifier."),
        ]:
            name = name.replace(ours, theirs, 1)
        if name.startswith("norm."):
            name = name.replace("norm.", "vit.layernorm.")
        renamed[name] = t.clone()
    return renamed


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch harvest-was-here",)


def main():
    net = randomised(VisionTransformer(**SHAPE), 1)
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    weights = net.state_dict()
    other = randomised(
        TorchvisionViT(image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5), 3
    )
    with torch.no_grad():
        outputs = {"image": image, "logits": net(image), "torchvision/logits": other(image)}
    save_file({**{f"timm/{k}": v for k, v in weights.items()}, **outputs}, HERE / "expected.safetensors")

    optimizer = torch.optim.AdamW(net.parameters())
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3, name="vit"),
        "best": torch.tensor(0.5).numpy()[()],
        "optimizer": optimizer.state_dict(),
        "model": {f"module.{k}": v for k, v in weights.items()},
    }
    torch.save(checkpoint, HERE / "training.pth")
    torch.save(weights, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    halves = {k: v.half() if i % 2 else v.bfloat16() for i, (k, v) in enumerate(weights.items())}
    save_file(halves, HERE / "half.safetensors", metadata={"format": "pt"})
    save_file(huggingface(weights), HERE / "huggingface.safetensors", metadata={"format": "pt"})
    torch.save(other.state_dict(), HERE / "torchvision.pth")

    dino = {"projection": torch.zeros(4, 8), "mlp.0.weight": torch.zeros(4, 8)}
    body = {f"backbone.{k}": v for k, v in weights.items() if not k.startswith("head.")}
    head = {f"head.{k}": v for k, v in dino.items()}
    student = {f"module.{k}": torch.zeros_like(v) for k, v in (body | head).items()}
    torch.save({"student": student, "teacher": body | head, "epoch": 1}, HERE / "dino.pth")

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    kinds = {
        "transposed": base.t(),
        "window": base[1:3, 2:5],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.5, -2.0])),
        "half": torch.tensor([1.0, -0.5, 6e-8, 65504.0], dtype=torch.float16),
        "bfloat16": torch.tensor([1.0, -3.0], dtype=torch.bfloat16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "int16": torch.tensor([-2, 300], dtype=torch.int16),
        "uint8": torch.tensor([255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    torch.save(kinds, HERE / "kinds.pth")
    torch.save(kinds, HERE / "kinds_legacy.pth", _use_new_zipfile_serialization=False)

    hostile = pickle.dumps({"weight": Hostile()}, protocol=2)
    (HERE / "hostile.bin").write_bytes(hostile)
    with zipfile.ZipFile(HERE / "hostile.pth", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", hostile)
        archive.writestr("archive/version", "3\n")


main()

"""Writes the files beside it: small networks of timm's own classes with seeded random weights, and what they compute.

    python generate.py        # timm 1.0.31, torch 2.15, safetensors; single thread, CPU

For every network NAME.safetensors holds `weight/*` (the state dict before any pass), `input`, `label`, `eval/features`,
`eval/logits`, `loss` (cross-entropy of the evaluation pass), `grad/*` (its gradient for every parameter), and for
networks with batch normalisation `train/features`, `train/logits` and `train/*` (running statistics after one training
pass), `train_grad/*` (gradients of the training pass). `names.json`: names and shapes of the published networks.
`torchvision_convnext.safetensors`: `weight/*` under torchvision's names, `input` and `eval/logits` of its ConvNeXt.
`patch_kernels.safetensors`: `FROM_TO/in` and `FROM_TO/out`, patch kernels resized by timm's `resample_patch_embed`.
"""

import json
import pathlib

import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_patch_embed
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

HERE = pathlib.Path(__file__).parent
CLASSES = 5


def inverted(arch, **settings):
    """As timm's builders for MobileNetV2 and EfficientNet-Lite call it, with fewer channels."""
    return EfficientNet(
        block_args=decode_arch_def([[stage] for stage in arch]),
        num_classes=CLASSES,
        act_layer=torch.nn.ReLU6,
        norm_layer=torch.nn.BatchNorm2d,
        round_chs_fn=lambda channels: channels,
        **settings,
    )


NETWORKS = {
    # Every kind of block: without expansion, with and without shortcut, both kernels, both strides.
    "efficientnet": (
        lambda: inverted(
            ["ds_r1_k3_s1_e1_c6", "ir_r2_k3_s2_e6_c8", "ir_r2_k5_s2_e4_c8", "ir_r2_k5_s1_e2_c10"],
            stem_size=6, num_features=20, fix_stem=True,
        ),
        37,
    ),
    "dinov2": (
        lambda: VisionTransformer(
            img_size=28, patch_size=7, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES, init_values=1e-5
        ),
        28,
    ),
    "dinov2_reg4": (
        lambda: VisionTransformer(
            img_size=28, patch_size=7, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES, init_values=1e-5,
            reg_tokens=4, no_embed_class=True,
        ),
        28,
    ),
    # The position table with rows for the registers, which none of timm's published networks has.
    "registers_with_positions": (
        lambda: VisionTransformer(
            img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=CLASSES, reg_tokens=2
        ),
        16,
    ),
    "convnext": (
        lambda: ConvNeXt(num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(6, 8, 12, 16)),
        40,
    ),
}

PUBLISHED = {
    "mobilenetv2_100": {},
    "efficientnet_lite0": {},
    "convnext_tiny": {},
    "vit_small_patch14_dinov2": {"img_size": 224},
    "vit_small_patch14_reg4_dinov2": {"img_size": 224},
}


def randomise(net, generator):
    """Weights and statistics that leave no term near zero: a branch scaled by 1e-6 would hide an error in it."""
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(3)
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim == 1 and name.endswith(("weight", "gamma")):
            tensor.copy_(1 + 0.2 * noise)
        elif tensor.ndim == 1:
            tensor.copy_(0.2 * noise)
        elif tensor.ndim == 3:
            tensor.copy_(0.5 * noise)
        else:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)


def outputs(net, images):
    pooled = net.forward_head(net.forward_features(images), pre_logits=True)
    return pooled, net.get_classifier()(pooled)


def gradients(net, logits, label):
    net.zero_grad()
    loss = torch.nn.functional.cross_entropy(logits, label)
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def reference(build, size, seed):
    generator = torch.Generator().manual_seed(seed)
    net = build()
    with torch.no_grad():
        randomise(net, generator)
    tensors = {f"weight/{name}": tensor.clone() for name, tensor in net.state_dict().items()}
    images = torch.randn(4, 3, size, size, generator=generator)
    label = torch.tensor([0, 1, 2, 4])
    tensors |= {"input": images, "label": label}
    net.eval()
    features, logits = outputs(net, images)
    loss, grads = gradients(net, logits, label)
    tensors |= {"eval/features": features.detach(), "eval/logits": logits.detach(), "loss": loss.reshape(1)}
    tensors |= {f"grad/{name}": gradient for name, gradient in grads.items()}
    statistics = [name for name, _ in net.named_buffers()]
    if statistics:
        net.train()
        features, logits = outputs(net, images)
        _, grads = gradients(net, logits, label)
        tensors |= {"train/features": features.detach(), "train/logits": logits.detach()}
        tensors |= {f"train/{name}": net.state_dict()[name].clone() for name in statistics}
        tensors |= {f"train_grad/{name}": gradient for name, gradient in grads.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def torchvision_convnext(seed):
    generator = torch.Generator().manual_seed(seed)
    stages = [(6, 8, 1), (8, 12, 1), (12, 16, 2), (16, None, 1)]
    net = TorchvisionConvNeXt([CNBlockConfig(*stage) for stage in stages], num_classes=CLASSES).eval()
    with torch.no_grad():
        randomise(net, generator)
        tensors = {f"weight/{name}": tensor.clone() for name, tensor in net.state_dict().items()}
        images = torch.randn(2, 3, 40, 40, generator=generator)
        return tensors | {"input": images, "eval/logits": net(images)}


def patch_kernels(seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for before, after in [(14, 16), (16, 14), (16, 8), (2, 4), (3, 1), (1, 3)]:
        kernels = torch.randn(2, 3, before, before, generator=generator)
        tensors[f"{before}_{after}/in"] = kernels
        tensors[f"{before}_{after}/out"] = resample_patch_embed(kernels, [after, after]).contiguous()
    return tensors


def names(name, settings):
    net = timm.create_model(name, num_classes=10, **settings)
    parameters = {key: list(value.shape) for key, value in net.named_parameters()}
    return {
        "parameters": parameters,
        "buffers": {key: list(value.shape) for key, value in net.named_buffers()},
        "parameter_count": sum(value.numel() for value in net.parameters()),
    }


def main():
    torch.set_num_threads(1)
    for seed, (name, (build, size)) in enumerate(NETWORKS.items()):
        save_file(reference(build, size, seed), HERE / f"{name}.safetensors")
    save_file(torchvision_convnext(10), HERE / "torchvision_convnext.safetensors")
    save_file(patch_kernels(11), HERE / "patch_kernels.safetensors")
    published = {name: names(name, settings) for name, settings in PUBLISHED.items()}
    (HERE / "names.json").write_text(json.dumps(published, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

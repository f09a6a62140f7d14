#!/usr/bin/env python3
"""One SimCLR training step in eager PyTorch, timed: the peer of `harvest bench simclr`. Prints one line of JSON.

needs: numpy, pillow, torch, torchvision (pip).   usage: torch_simclr.py [BATCH] [--steps 5] [--size 32] [--threads 2] [--views]

The network of fashion_mnist.py without its classifier, a projection 64 -> 64 -> 128, NT-Xent over both views of the batch
(arXiv:2002.05709, equation 1), AdamW. Views are noise in memory; `images_per_second` counts both views of each image. With --views,
instead: torchvision's SimCLR views of noise pictures of that size, as bytes, one process, `images_per_second` counting pairs.
"""
import argparse, json, resource, statistics, time
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from fashion_mnist import ResNet8


class SimClr(nn.Module):
    def __init__(s):
        super().__init__()
        s.f = ResNet8(10)
        s.f.fc = nn.Identity()
        s.g = nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, 128))

    def forward(s, x):
        return F.normalize(s.g(s.f(x)), dim=1)


def nt_xent(z, temperature):
    """`z`: the first views of all images, then the second ones."""
    n = len(z) // 2
    similarity = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))


def step(a):
    torch.manual_seed(0)
    model = SimClr().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
    x = torch.randn(2 * a.batch, 3, a.size, a.size)
    times = []
    for number in range(a.steps + 2):
        start = time.perf_counter()
        loss = nt_xent(model(x), 0.2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
        if number >= 2:
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    return dict(model="resnet8", steps=a.steps, seconds_per_step=round(seconds, 5), seconds_fastest=round(min(times), 5),
                images_per_second=round(2 * a.batch / seconds, 2))


def views(a):
    from PIL import Image
    from torchvision import transforms as T
    small = a.size < 64
    s = 0.5 if small else 1.0
    parts = [T.RandomResizedCrop(a.size, (0.2 if small else 0.08, 1)), T.RandomHorizontalFlip(),
             T.RandomApply([T.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)], 0.8), T.RandomGrayscale(0.2)]
    if not small:
        parts.append(T.RandomApply([T.GaussianBlur(a.size // 20 * 2 + 1, (0.1, 2))], 0.5))
    transform, rng = T.Compose(parts), np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (a.size, a.size, 3), np.uint8)) for _ in range(64)]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 5:
        for image in images:
            np.asarray(transform(image)), np.asarray(transform(image))
        count += len(images)
    return dict(views=True, images_per_second=round(count / (time.perf_counter() - start), 2))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("batch", type=int, nargs="?", default=128)
    ap.add_argument("--steps", type=int, default=5); ap.add_argument("--size", type=int, default=32)
    ap.add_argument("--threads", type=int, default=2); ap.add_argument("--views", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    found = views(a) if a.views else step(a)
    memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(dict(peer="torch " + torch.__version__, batch=a.batch, size=a.size, threads=a.threads, peak_mib=memory, **found)))


main()

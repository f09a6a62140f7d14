#!/usr/bin/env python3
"""FreeMatch on Fashion-MNIST in PyTorch: the peer of configs/fashion_mnist.toml.

needs: numpy, pillow, torch, torchvision (pip); the four .gz files of Debian's dataset-fashion-mnist.
usage: fashion_mnist.py [--data DIR] [--labels FILE] [--seed 0] [--steps 800] [--supervised] [--threads 2] ...

10 labels per class (100 in all), all 60,000 training images unlabelled, test on the 10,000. Batch 32 labelled + 4 x 32
unlabelled, 800 steps. Network: basic blocks as in torchvision's ResNet; 3x3 stem of 16 channels, three stages of one
block each with 16, 32, 64 channels and strides 1, 2, 2, a 1x1 convolution where the shape changes. FreeMatch as in
semilearn 0.3.2 (USB): hard labels, ema_p 0.999, fairness weight 0.001, one forward over labelled, weak and strong views,
and batch norm over all of them. AdamW, lr 2e-3, weight decay 5e-4 (none on biases and norms), lr cos(7 pi k / 16 K), no
warm-up, no clipping. The averaged weights (decay 0.99; 0.999 would still hold 45 % of the untrained weights after 800
steps) are tested, with the running statistics of the live network, as in USB. Weak view: reflect-padded random crop
(padding size/8), flip. Strong view: the same, then 3 of FixMatch's 14 operations, then cutout of side U(0, size/2).

Images are decoded, made RGB and resized once; strong views are drawn with Pillow in DataLoader workers. Prints one JSON line.
`seconds` is the training loop from its first batch to its last step, `seconds_total` includes loading and the test.
"""
import argparse, gzip, json, math, os, resource, sys, time
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import DataLoader, Dataset


class Block(nn.Module):
    def __init__(s, i, o, stride):
        super().__init__()
        s.conv1, s.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        s.conv2, s.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        s.downsample = None
        if stride != 1 or i != o:
            s.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(s, x):
        y = s.bn2(s.conv2(F.relu(s.bn1(s.conv1(x)), inplace=True)))
        return F.relu(y + (x if s.downsample is None else s.downsample(x)), inplace=True)


class ResNet8(nn.Module):
    def __init__(s, classes):
        super().__init__()
        s.conv1, s.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        s.layer1, s.layer2, s.layer3 = (nn.Sequential(Block(i, o, t)) for i, o, t in [(16, 16, 1), (16, 32, 2), (32, 64, 2)])
        s.fc = nn.Linear(64, classes)
        for m in s.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(s, x):
        x = F.relu(s.bn1(s.conv1(x)), inplace=True)
        return s.fc(s.layer3(s.layer2(s.layer1(x))).mean((2, 3)))


class FreeMatch:
    """Thresholds and losses; state as in USB: `tau` (time_p), `p` (p_model), `hist` (label_hist)."""

    def __init__(s, classes, ema_p=0.999, fairness=0.001):
        s.c, s.m, s.w = classes, ema_p, fairness
        s.p = torch.full((classes,), 1 / classes)
        s.hist, s.tau = s.p.clone(), s.p.mean()

    def __call__(s, labelled, y, weak, strong):
        sup = F.cross_entropy(labelled, y)
        with torch.no_grad():
            prob = weak.detach().softmax(-1)
            top, label = prob.max(-1)
            s.tau = s.tau * s.m + (1 - s.m) * top.mean()
            s.p = s.p * s.m + (1 - s.m) * prob.mean(0)
            h = torch.bincount(label, minlength=s.c).to(prob.dtype)
            s.hist = s.hist * s.m + (1 - s.m) * h / h.sum()
            mask = top.ge(s.tau * (s.p / s.p.max())[label]).to(prob.dtype)
        unsup = (F.cross_entropy(strong, label, reduction="none") * mask).mean()
        fair = torch.zeros(())
        if mask.sum() > 0:
            ps = strong[mask.bool()].softmax(-1)
            hs = torch.bincount(ps.argmax(-1), minlength=s.c).to(ps.dtype)
            inverse = lambda v: torch.where(v > 0, 1 / v, torch.zeros_like(v))
            a = s.p * inverse(s.hist)
            b = ps.mean(0) * inverse(hs / hs.sum())
            fair = (a / a.sum() * torch.log(b / b.sum() + 1e-12)).sum()
        return sup + unsup + s.w * fair, dict(sup=sup, unsup=unsup, fair=fair, mask=mask)


def randaugment(img, rng, n=3):
    """`n` of FixMatch's operations, drawn with replacement, each with a uniform magnitude, then cutout."""
    w, h = img.size
    for _ in range(n):
        op = rng.integers(14)
        if op == 0: img = ImageOps.autocontrast(img)
        elif op == 1: img = ImageEnhance.Brightness(img).enhance(rng.uniform(0.05, 0.95))
        elif op == 2: img = ImageEnhance.Color(img).enhance(rng.uniform(0.05, 0.95))
        elif op == 3: img = ImageEnhance.Contrast(img).enhance(rng.uniform(0.05, 0.95))
        elif op == 4: img = ImageOps.equalize(img)
        elif op == 6: img = ImageOps.posterize(img, max(1, int(rng.uniform(4, 8))))
        elif op == 7: img = img.rotate(rng.uniform(-30, 30))
        elif op == 8: img = ImageEnhance.Sharpness(img).enhance(rng.uniform(0.05, 0.95))
        elif op == 9: img = img.transform((w, h), Image.AFFINE, (1, rng.uniform(-0.3, 0.3), 0, 0, 1, 0))
        elif op == 10: img = img.transform((w, h), Image.AFFINE, (1, 0, 0, rng.uniform(-0.3, 0.3), 1, 0))
        elif op == 11: img = ImageOps.solarize(img, rng.uniform(0, 256))
        elif op == 12: img = img.transform((w, h), Image.AFFINE, (1, 0, rng.uniform(-0.3, 0.3) * w, 0, 1, 0))
        elif op == 13: img = img.transform((w, h), Image.AFFINE, (1, 0, 0, 0, 1, rng.uniform(-0.3, 0.3) * h))
    a = np.array(img)
    side = rng.uniform(0, 0.5) * w
    if side > 0:
        x0, y0 = (int(max(0, rng.uniform(0, w) - side / 2)) for _ in range(2))
        a[y0:int(min(h, y0 + side)) + 1, x0:int(min(w, x0 + side)) + 1] = (125, 123, 114)
    return a


class Views(Dataset):
    """Weak (and strong) views of reflect-padded images `[N, size+2p, size+2p, 3]`; item i is the i-th draw of `order`."""

    def __init__(s, padded, size, order, seed, strong):
        s.padded, s.size, s.order, s.seed, s.strong = padded, size, order, seed, strong

    def __len__(s):
        return len(s.order)

    def weak(s, image, rng):
        slack = image.shape[0] - s.size + 1
        y, x = rng.integers(slack, size=2)
        image = image[y:y + s.size, x:x + s.size]
        return image[:, ::-1] if rng.integers(2) else image

    def __getitem__(s, i):
        rng = np.random.Generator(np.random.SFC64([s.seed, i, int(s.strong)]))
        image = s.padded[s.order[i]]
        weak = np.ascontiguousarray(s.weak(image, rng))
        if not s.strong:
            return s.order[i], weak
        return s.order[i], weak, randaugment(Image.fromarray(np.ascontiguousarray(s.weak(image, rng))), rng)


def collate(items):
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*items))


def epochs(rng, indices, count):
    """`count` indices, each epoch a new order."""
    rounds = math.ceil(count / len(indices))
    return np.concatenate([rng.permutation(indices) for _ in range(rounds)])[:count]


def train(images, labels, labelled, tests, test_labels, a, classes=10):
    """Trains on uint8 images `[N, size, size, 3]`; `labelled` are indices into them. Returns the numbers to print."""
    rng = np.random.default_rng(a.seed)
    torch.manual_seed(a.seed)
    size = images.shape[1]
    p = size // 8
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
    mean, std = torch.tensor(a.mean).view(-1, 1, 1) * 255, torch.tensor(a.std).view(-1, 1, 1) * 255
    floats = lambda u8: ((u8.permute(0, 3, 1, 2).float() - mean) / std).contiguous()
    lb = Views(padded, size, epochs(rng, labelled, a.steps * a.batch), a.seed, False)
    ulb = Views(padded, size, epochs(rng, np.arange(len(images)), a.steps * a.batch * a.uratio), a.seed + 1, True)
    workers = dict(num_workers=a.workers, prefetch_factor=4) if a.workers else {}
    lb_loader = iter(DataLoader(lb, a.batch, collate_fn=collate))
    ulb_loader = None if a.supervised else iter(DataLoader(ulb, a.batch * a.uratio, collate_fn=collate, **workers))

    net = ResNet8(classes).train()
    if a.channels_last:
        net = net.to(memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in net.named_parameters()}
    decayed = [v for v in net.parameters() if v.ndim > 1]
    plain = [v for v in net.parameters() if v.ndim <= 1]
    opt = torch.optim.AdamW([dict(params=decayed), dict(params=plain, weight_decay=0)], a.lr, weight_decay=a.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda k: max(0.0, math.cos(math.pi * 7 * k / (16 * a.steps))))
    algorithm = FreeMatch(classes, a.ema_p)
    y_all = torch.from_numpy(labels.astype(np.int64))

    times, kept, right, start = [], 0.0, 0.0, time.perf_counter()
    for step in range(a.steps):
        begun = time.perf_counter()
        idx, weak = next(lb_loader)
        y, x = y_all[idx], floats(weak)
        if a.supervised:
            loss = F.cross_entropy(net(x), y)
        else:
            u, weak, strong = next(ulb_loader)
            views = torch.cat([x, floats(weak), floats(strong)])
            if a.channels_last:
                views = views.contiguous(memory_format=torch.channels_last)
            logits = net(views)
            lw, ls = logits[len(x):].chunk(2)
            loss, parts = algorithm(logits[:len(x)], y, lw, ls)
            kept = 0.98 * kept + 0.02 * parts["mask"].mean().item()
            right = 0.98 * right + 0.02 * (lw.argmax(1) == y_all[u]).float().mean().item()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        schedule.step()
        with torch.no_grad():
            live = dict(net.named_parameters())
            torch._foreach_lerp_(list(average.values()), [live[k] for k in average], 1 - a.ema)
        times.append(time.perf_counter() - begun)
        if a.verbose and (step + 1) % a.verbose == 0:
            print(f"{step + 1} loss {loss.item():.3f} kept {kept:.3f} pseudo-labels right {right:.3f}", file=sys.stderr)
    seconds = time.perf_counter() - start

    def accuracy():
        net.eval()
        with torch.no_grad():
            guess = torch.cat([net(floats(torch.from_numpy(t))).argmax(1) for t in np.array_split(tests, max(1, len(tests) // 500))])
        net.train()
        return (guess.numpy() == test_labels).mean().item()

    live_accuracy = accuracy()
    with torch.no_grad():
        for k, v in net.named_parameters():
            v.copy_(average[k])
    return dict(accuracy=round(accuracy(), 4), accuracy_without_ema=round(live_accuracy, 4), seconds=round(seconds, 2),
                seconds_per_step=round(float(np.median(times)), 4), kept=round(kept, 3))


def fashion(directory, part, size):
    """The images as RGB `[N, size, size, 3]`, resized by Pillow's bilinear filter, and their labels."""
    def idx(name, header):
        with gzip.open(os.path.join(directory, name)) as f:
            return np.frombuffer(f.read(), np.uint8, offset=header)
    raw = idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    if size != 28:
        raw = np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.BILINEAR)) for i in raw])
    return np.repeat(raw[..., None], 3, axis=3), idx(f"{part}-labels-idx1-ubyte.gz", 8)


def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    ap.add_argument("--labels", help="text file of indices of the labelled training images; else drawn with --seed")
    ap.add_argument("--labels-per-class", type=int, default=10)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--size", type=int, default=32)
    ap.add_argument("--steps", type=int, default=800)
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--uratio", type=int, default=4)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--weight-decay", type=float, default=5e-4)
    ap.add_argument("--ema-p", type=float, default=0.999, help="decay of the thresholds")
    ap.add_argument("--ema", type=float, default=0.99)
    ap.add_argument("--mean", type=float, nargs="+", default=[0.286], help="of the pixels in 0..1, one or one per channel")
    ap.add_argument("--std", type=float, nargs="+", default=[0.353])
    ap.add_argument("--supervised", action="store_true", help="the same steps on the labelled images alone")
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--workers", type=int, default=1, help="DataLoader processes that draw unlabelled views")
    ap.add_argument("--verbose", type=int, default=0, metavar="N", help="a line every N steps on standard error")
    return ap


def main():
    a = parser().parse_args()
    begun = time.perf_counter()
    torch.set_num_threads(a.threads)
    images, labels = fashion(a.data, "train", a.size)
    tests, test_labels = fashion(a.data, "t10k", a.size)
    if a.labels:
        with open(a.labels) as f:
            labelled = np.array([int(word) for word in f.read().split()])
    else:
        rng = np.random.default_rng([a.seed, 17])
        labelled = np.concatenate([rng.choice(np.flatnonzero(labels == c), a.labels_per_class, replace=False) for c in range(10)])
    result = train(images, labels, labelled, tests, test_labels, a)
    print(json.dumps(dict(peer="torch " + torch.__version__, algorithm="supervised" if a.supervised else "freematch",
                          seed=a.seed, steps=a.steps, labelled=len(labelled), size=a.size, threads=a.threads, workers=a.workers,
                          **result, seconds_total=round(time.perf_counter() - begun, 2),
                          peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)))
    sys.stdout.flush()
    os._exit(0)  # without waiting for workers that still draw


if __name__ == "__main__":
    main()

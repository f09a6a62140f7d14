#!/usr/bin/env python3
"""Any algorithm of the package semilearn (USB) on Fashion-MNIST, at the steps and settings of fashion_mnist.py.

needs: what fashion_mnist.py needs, and semilearn (pip). The package imports its audio side whatever it is used for; an
empty stand-in takes the place of a torchaudio that is absent or does not fit the installed torch.
usage: semilearn_fashion.py --algorithm fixmatch [options of fashion_mnist.py]

The algorithm's own `train_step`, hooks and defaults of the package are used; network, views, optimizer, rate and averaged
weights are those of fashion_mnist.py. Prints one JSON line.
"""
import argparse, json, logging, math, os, sys, time, types, warnings
from importlib.machinery import ModuleSpec

warnings.filterwarnings("ignore")
import numpy as np
import torch
from torch.utils.data import DataLoader

import fashion_mnist as peer

try:
    import torchaudio
except (ImportError, OSError, RuntimeError):
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

# The package's image settings (USB, config/usb_cv), where an algorithm reads them.
SETTINGS = dict(T=0.5, p_cutoff=0.95, hard_label=True, thresh_warmup=True, ema_p=0.999, ent_loss_ratio=0.001,
                use_quantile=False, clip_thresh=False, dist_align=True, dist_uniform=True, n_sigma=2, per_class=False,
                unsup_warm_up=0.4, mixup_alpha=0.5, mixup_manifold=False, tsa_schedule="none", kl_loss_ratio=0.5,
                rot_loss_ratio=0.5)
PER_ALGORITHM = dict(uda=dict(p_cutoff=0.8, T=0.4), mixmatch=dict(ulb_loss_ratio=10.0, unsup_warm_up=0.4),
                     meanteacher=dict(ulb_loss_ratio=50.0), adamatch=dict(p_cutoff=0.9))


class Wrapped(torch.nn.Module):
    """The network as the package calls it: a dictionary of logits and features."""

    def __init__(self, classes):
        super().__init__()
        self.net = peer.ResNet8(classes)

    def forward(self, x, **_):
        n = self.net
        x = torch.nn.functional.relu(n.bn1(n.conv1(x)))
        feat = n.layer3(n.layer2(n.layer1(x))).mean((2, 3))
        return dict(logits=n.fc(feat), feat=feat)


def build(a, unlabelled, labelled):
    import semilearn.algorithms as algorithms
    from semilearn.core import AlgorithmBase

    AlgorithmBase.set_dataset = lambda self: None
    AlgorithmBase.set_data_loader = lambda self: {}
    AlgorithmBase.set_optimizer = lambda self: (None, None)
    args = argparse.Namespace(
        num_classes=10, ema_m=a.ema, epoch=1, num_train_iter=a.steps, num_eval_iter=a.steps + 1, num_log_iter=a.steps + 1,
        ulb_loss_ratio=1.0, use_cat=True, amp=False, clip_grad=0, save_name="x", save_dir="/tmp", resume=False,
        algorithm=a.algorithm, gpu=None, rank=0, distributed=False, world_size=1, use_pretrain=False, pretrain_path="",
        use_wandb=False, use_aim=False, ulb_dest_len=unlabelled, lb_dest_len=labelled, batch_size=a.batch, uratio=a.uratio,
        ema_p=a.ema_p, **{k: v for k, v in SETTINGS.items() if k != "ema_p"})
    for key, value in PER_ALGORITHM.get(a.algorithm, {}).items():
        setattr(args, key, value)
    builder = lambda num_classes, **_: Wrapped(num_classes)
    names = algorithms.name2alg if hasattr(algorithms, "name2alg") else None
    if names is None:
        from semilearn.core.utils import ALGORITHMS
        algorithm = ALGORITHMS[a.algorithm](args=args, net_builder=builder, tb_log=None, logger=logging.getLogger("x"))
    else:
        algorithm = names[a.algorithm](args=args, net_builder=builder, tb_log=None, logger=logging.getLogger("x"))
    return algorithm


def train(images, labels, labelled, tests, test_labels, a):
    rng = np.random.default_rng(a.seed)
    torch.manual_seed(a.seed)
    size, p = images.shape[1], images.shape[1] // 8
    padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
    mean, std = torch.tensor(a.mean).view(-1, 1, 1) * 255, torch.tensor(a.std).view(-1, 1, 1) * 255
    floats = lambda u8: ((u8.permute(0, 3, 1, 2).float() - mean) / std).contiguous()
    two_weak = a.algorithm in ("mixmatch", "meanteacher")
    lb = peer.Views(padded, size, peer.epochs(rng, labelled, a.steps * a.batch), a.seed, False)
    order = peer.epochs(rng, np.arange(len(images)), a.steps * a.batch * a.uratio)
    ulb = peer.Views(padded, size, order, a.seed + 1, not two_weak)
    second = peer.Views(padded, size, order, a.seed + 2, False)
    workers = dict(num_workers=a.workers, prefetch_factor=4) if a.workers else {}
    lb_loader = iter(DataLoader(lb, a.batch, collate_fn=peer.collate))
    ulb_loader = iter(DataLoader(ulb, a.batch * a.uratio, collate_fn=peer.collate, **workers))
    second_loader = iter(DataLoader(second, a.batch * a.uratio, collate_fn=peer.collate)) if two_weak else None

    algorithm = build(a, len(images), len(labelled))
    net = algorithm.model.train()
    average = {k: v.detach().clone() for k, v in net.named_parameters()}
    decayed = [v for v in net.parameters() if v.ndim > 1]
    plain = [v for v in net.parameters() if v.ndim <= 1]
    opt = torch.optim.AdamW([dict(params=decayed), dict(params=plain, weight_decay=0)], a.lr, weight_decay=a.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda k: max(0.0, math.cos(math.pi * 7 * k / (16 * a.steps))))
    y_all = torch.from_numpy(labels.astype(np.int64))
    import inspect
    wanted = inspect.signature(algorithm.train_step).parameters
    times, start = [], time.perf_counter()
    for step in range(a.steps):
        begun = time.perf_counter()
        algorithm.it = step
        idx, x = next(lb_loader)
        given = dict(x_lb=floats(x), y_lb=y_all[idx], idx_lb=idx)
        if "idx_ulb" in wanted or "x_ulb_w" in wanted:
            if two_weak:
                u, weak = next(ulb_loader)
                _, other = next(second_loader)
            else:
                u, weak, other = next(ulb_loader)
            given |= dict(idx_ulb=u, x_ulb_w=floats(weak), x_ulb_s=floats(other))
        out, _ = algorithm.train_step(**{k: v for k, v in given.items() if k in wanted})
        opt.zero_grad(set_to_none=True)
        out["loss"].backward()
        opt.step()
        schedule.step()
        with torch.no_grad():
            live = dict(net.named_parameters())
            torch._foreach_lerp_(list(average.values()), [live[k] for k in average], 1 - a.ema)
        times.append(time.perf_counter() - begun)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        for k, v in net.named_parameters():
            v.copy_(average[k])
        net.eval()
        chunks = np.array_split(tests, max(1, len(tests) // 500))
        guess = torch.cat([net(floats(torch.from_numpy(t)))["logits"].argmax(1) for t in chunks])
    return dict(accuracy=round((guess.numpy() == test_labels).mean().item(), 4), seconds=round(seconds, 2),
                seconds_per_step=round(float(np.median(times)), 4))


def main():
    ap = peer.parser()
    ap.add_argument("--algorithm", default="fixmatch")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    images, labels = peer.fashion(a.data, "train", a.size)
    tests, test_labels = peer.fashion(a.data, "t10k", a.size)
    if a.labels:
        with open(a.labels) as f:
            labelled = np.array([int(word) for word in f.read().split()])
    else:
        rng = np.random.default_rng([a.seed, 17])
        labelled = np.concatenate([rng.choice(np.flatnonzero(labels == c), a.labels_per_class, replace=False) for c in range(10)])
    result = train(images, labels, labelled, tests, test_labels, a)
    import importlib.metadata
    print(json.dumps(dict(peer="semilearn " + importlib.metadata.version("semilearn"), algorithm=a.algorithm, seed=a.seed,
                          steps=a.steps, labelled=len(labelled), size=a.size, threads=a.threads, **result)))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

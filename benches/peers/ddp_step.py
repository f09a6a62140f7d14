#!/usr/bin/env python3
"""One FreeMatch training step in PyTorch's DistributedDataParallel over gloo: the peer of `harvest bench scaling`.

needs: torch, timm (pip).   usage: ddp_step.py [MODEL] [BATCH] [--uratio 1] [--steps 5] [--threads 1] [--launch N]
                                   [--bucket-mib 25] [--strong]

Ranks come from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, from Open MPI's variables, or from Slurm's; or --launch N
starts N of them here. BATCH counts labelled images of a rank; with --strong, of all ranks. The step is that of torch_step.py:
labelled, weak and strong views in one graph, thresholds and histogram over all ranks (gathered), masked cross-entropy,
fairness term, AdamW. Rank 0 prints one line of JSON; `communication_seconds` is the time of gloo's all-reduces when nothing
else runs, measured after the steps, `exposed_seconds` the step's time beyond that of the same step without synchronisation.
"""
import argparse, json, os, socket, statistics, subprocess, sys, time


def environment():
    e = os.environ
    for rank, size, local in [("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
                              ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")]:
        if rank in e and size in e and (not rank.startswith("SLURM") or "SLURM_STEP_ID" in e):
            return int(e[rank]), int(e[size])
    return 0, 1


def launch(a):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    words = [w for i, w in enumerate(sys.argv) if w != "--launch" and (i == 0 or sys.argv[i - 1] != "--launch")]
    ranks = [subprocess.Popen([sys.executable] + words, env=dict(os.environ, RANK=str(r), WORLD_SIZE=str(a.launch), MASTER_ADDR="127.0.0.1", MASTER_PORT=port))
             for r in range(a.launch)]
    try:
        codes = [r.wait(timeout=a.limit) for r in ranks]
    finally:
        for r in ranks:
            if r.poll() is None:
                r.kill()
    sys.exit(max(abs(c) for c in codes))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model", nargs="?", default="vit_tiny_patch2_32"); ap.add_argument("batch", type=int, nargs="?", default=8)
    ap.add_argument("--uratio", type=int, default=1); ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--threads", type=int, default=1); ap.add_argument("--classes", type=int, default=10)
    ap.add_argument("--bucket-mib", type=float, default=25); ap.add_argument("--strong", action="store_true")
    ap.add_argument("--launch", type=int); ap.add_argument("--limit", type=float, default=600)
    a = ap.parse_args()
    if a.launch:
        launch(a)
    os.environ["OMP_NUM_THREADS"] = str(a.threads)
    import torch, torch.distributed as dist, torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel
    from torch_step import build
    torch.set_num_threads(a.threads)
    rank, world = environment()
    if world > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1"); os.environ.setdefault("MASTER_PORT", "29533")
        from datetime import timedelta
        dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=a.limit))
    if a.strong and a.batch % world:
        sys.exit(f"{a.batch} labelled images cannot be divided over {world} ranks")
    B = a.batch // world if a.strong else a.batch
    U, C = B * a.uratio, a.classes
    torch.manual_seed(0)
    model, size = build(a.model, C)
    model.train()
    net = DistributedDataParallel(model, bucket_cap_mb=a.bucket_mib, gradient_as_bucket_view=True) if world > 1 else model
    optimizer = torch.optim.AdamW(net.parameters(), 5e-5, weight_decay=5e-4)
    g = torch.Generator().manual_seed(1 + rank)
    x = torch.randn(B + 2 * U, 3, size, size, generator=g); y = torch.randint(0, C, (B,), generator=g)
    p_model = torch.full((C,), 1 / C); hist = p_model.clone(); tau = p_model.mean(); mom = 0.999

    def gather(rows):
        if world == 1:
            return rows
        all_rows = [torch.empty_like(rows) for _ in range(world)]
        dist.all_gather(all_rows, rows.contiguous())
        return torch.cat(all_rows)

    def step():
        nonlocal p_model, hist, tau
        out = net(x).float(); lb, (w, st) = out[:B], out[B:].chunk(2)
        sup = F.cross_entropy(lb, y)
        with torch.no_grad():
            own = w.detach().softmax(-1); mx, ix = own.max(-1)
            pr = gather(own)
            best, at = pr.max(-1)
            tau = tau * mom + (1 - mom) * best.mean(); p_model = p_model * mom + (1 - mom) * pr.mean(0)
            h = torch.bincount(at, minlength=C).to(pr.dtype); hist = hist * mom + (1 - mom) * h / h.sum()
            mask = mx.ge(tau * (p_model / p_model.max())[ix]).to(pr.dtype)
        loss = sup + (F.cross_entropy(st, ix, reduction="none") * mask).mean()
        if mask.sum() > 0:
            ps = st[mask.bool()].softmax(-1); hs = torch.bincount(ps.argmax(-1), minlength=C).to(ps.dtype); hs = hs / hs.sum()
            inv = lambda v: torch.where(v > 0, 1 / v, torch.zeros_like(v))
            a1 = p_model * inv(hist); a1 = a1 / a1.sum(); a2 = ps.mean(0) * inv(hs); a2 = a2 / a2.sum()
            loss = loss + 0.001 * (a1 * torch.log(a2 + 1e-12)).sum()
        optimizer.zero_grad(set_to_none=True); loss.backward(); optimizer.step()
        return loss.item()

    def measure(count):
        times = []
        for number in range(count + 2):
            start = time.perf_counter(); loss = step()
            if number >= 2:
                times.append(time.perf_counter() - start)
        return times, loss

    times, loss = measure(a.steps)
    seconds = statistics.median(times)
    parameters = sum(p.numel() for p in model.parameters())
    line = dict(peer="torch " + torch.__version__, transport="gloo" if world > 1 else "alone", model=a.model, ranks=world, local_batch=B,
                uratio=a.uratio, threads=a.threads, classes=C, steps=a.steps, scaling="strong" if a.strong else "weak",
                seconds_per_step=round(seconds, 5), seconds_fastest=round(min(times), 5), seconds_slowest=round(max(times), 5),
                jitter=round(statistics.pstdev(times) / seconds, 5), gradient_bytes=4 * parameters, loss=round(loss, 5))
    if world > 1:
        dist.barrier()
        cap, sums = int(a.bucket_mib * 2 ** 20 / 4), []
        buckets = [torch.zeros(min(cap, parameters - at)) for at in range(0, parameters, cap)]
        for _ in range(6):
            start = time.perf_counter()
            for bucket in buckets:
                dist.all_reduce(bucket)
            sums.append(time.perf_counter() - start)
        line["communication_seconds"] = round(statistics.median(sums[1:]), 5)
        with net.no_sync():
            alone, _ = measure(max(a.steps // 2, 2))
        line["exposed_seconds"] = round(max(seconds - statistics.median(alone), 0.0), 5)
    line["images_per_second"] = round(world * (B + 2 * U) / seconds, 2)
    if rank == 0:
        print(json.dumps(line), flush=True)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

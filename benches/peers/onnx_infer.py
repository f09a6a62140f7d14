#!/usr/bin/env python3
"""A network's forward pass in ONNX Runtime, timed: the peer of `harvest bench inference`.

needs: numpy, onnxruntime (pip).   usage: onnx_infer.py MODEL.onnx BATCH [--passes 20] [--threads 2]

MODEL.onnx is what `harvest bench inference --export DIR` leaves: bytes in, logits out, normalisation inside. Prints one JSON line:
the median seconds a pass takes, images a second, peak memory in MiB.
"""
import argparse, json, resource, statistics, time
import numpy as np
import onnxruntime as ort


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model"); ap.add_argument("batch", type=int)
    ap.add_argument("--passes", type=int, default=20); ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    how = ort.SessionOptions()
    how.intra_op_num_threads, how.inter_op_num_threads = a.threads, 1
    session = ort.InferenceSession(a.model, how, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1]
    images = np.random.default_rng(1).integers(0, 256, (a.batch, size, size, 3), dtype=np.uint8)
    times = []
    for number in range(a.passes + 2):
        begun = time.perf_counter()
        session.run(["logits"], {"images": images})
        if number >= 2:
            times.append(time.perf_counter() - begun)
    sec = statistics.median(times)
    print(json.dumps(dict(peer="onnxruntime " + ort.__version__, batch=a.batch, seconds_per_pass=round(sec, 6),
                          images_per_second=round(a.batch / sec, 2),
                          peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))))


if __name__ == "__main__":
    main()

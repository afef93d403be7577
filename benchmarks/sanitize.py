"""Runs every CUDA kernel once on every launch path, small: what compute-sanitizer looks at.

compute-sanitizer --tool memcheck python benchmarks/sanitize.py
"""

import argparse

import torch

from vaal_ext import _C, ops

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# By the launch plan: a part of a warp, a warp, a block, a streamed row, a row over several blocks.
LOGITS = ((300, 3), (40, 100), (5, 1000), (200, 40_000), (2, 70_001))
SAMPLES = ((300, 10), (40, 784), (5, 3072), (2, 600_001))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    device, seen = parser.parse_args().device, set()
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for rows, cols in LOGITS:
            a = torch.randn(rows, cols, device=device, dtype=dtype)
            b = a + torch.randn_like(a) / 10
            for op in (
                "symmetric_kl",
                "symmetric_kl_direction",
                "posterior_summary",
                "fisher_product",
                "fisher_direction",
            ):
                seen.add((op, _C.launch_plan(op, rows, cols, name)["path"]))
            for how in ({}, {"divergence": "forward"}, {"smoothing": 0.1}):
                ops.symmetric_kl_direction(a, b, **how)
                p, q = a.clone().requires_grad_(), b.clone().requires_grad_()
                ops.symmetric_kl(p, q, **how).sum().backward()
            ops.posterior_summary(a)
            ops.fisher_product(a, b)
            ops.fisher_direction(a)
        for rows, size in SAMPLES:
            x = torch.randn(rows, size, device=device, dtype=dtype)
            for op in ("perturb", "random_perturb"):
                seen.add((op, _C.launch_plan(op, rows, size, name)["path"]))
            ops.perturb(x, torch.randn_like(x), 0.1)
            index = torch.arange(rows, device=device)
            ops.random_perturb(x, 0.1, seed=1, sample_index=index)
            seen.add(("deepfool_step", _C.launch_plan("deepfool_step", rows, size, name)["path"]))
            scores = torch.randn(rows, 5, device=device, dtype=dtype)
            classes = index[:, None] % 4
            ops.deepfool_step(scores, x[:, None], classes[:, 0] + 1, classes)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print("paths run:", ", ".join(f"{op}/{path}" for op, path in sorted(seen)))


if __name__ == "__main__":
    main()

"""Loads kernels that were built elsewhere into the torch that is here, and tries every op once.

python benchmarks/smoke.py DIR [--device cuda]

DIR holds _ops_cpu.so and _ops_cuda.so, built against this torch or another one from 2.11 on: the
libraries keep to its stable ABI. Results are held to the plain PyTorch of vaal_ext.reference.
"""

import argparse
from pathlib import Path

import torch

from vaal_ext import reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tolerance(dtype: torch.dtype) -> float:
    """400 roundoffs of the arithmetic, and one of the storage."""
    stored = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}.get(dtype, 0.0)
    return 400 * (2.0**-53 if dtype == torch.float64 else 2.0**-24) + stored


def check(device: torch.device, dtype: torch.dtype, rows: int, cols: int) -> None:
    """Every raw op on [rows, cols]; AssertionError names what is off."""
    raw = torch.ops.vaal
    p = torch.randn(rows, cols, dtype=torch.float64).to(dtype)
    q = (p.double() + 0.3 * torch.randn(rows, cols)).to(dtype)
    a, b, index = p.to(device), q.to(device), torch.arange(rows)
    p, q = p.double().requires_grad_(), q.double().requires_grad_()
    value = reference.symmetric_kl(p, q)
    grads = torch.autograd.grad(value.sum(), (p, q))
    direction = reference.symmetric_kl_direction(p, q)[1]
    one = torch.ones(rows, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    noise = reference.random_normal(cols, seed=3, sample_index=index)
    p, q = p.detach(), q.detach()
    gradients, own = torch.randn(rows, 2, cols).to(dtype), index % 3
    others = torch.stack([(own + 1) % 3, (own + 2) % 3], dim=1)
    pairs = [
        (raw.symmetric_kl(a, b, 0.0, True), value),
        *zip(raw.symmetric_kl_direction(a, b, 0.0, True), (value, direction), strict=True),
        *zip(
            raw.symmetric_kl_backward(one.to(device), a, b, 0.0, True, True, True),
            grads,
            strict=True,
        ),
        *zip(raw.perturb(a, b, 0.5), reference.perturb(p, q, 0.5, return_norm=True), strict=True),
        (raw.random_perturb(a, 0.5, 3, index.to(device)), reference.perturb(p, noise, 0.5)),
        *zip(raw.posterior_summary(a), reference.posterior_summary(p), strict=True),
        *zip(
            raw.deepfool_step(a[:, :3], gradients.to(device), own.to(device), others.to(device)),
            reference.deepfool_step(p[:, :3], gradients.double(), own, others),
            strict=True,
        ),
        (raw.fisher_product(a, b), reference.fisher_product(p, q)),
        *zip(raw.fisher_direction(a), reference.fisher_direction(p), strict=True),
    ]
    for number, (mine, expected) in enumerate(pairs):
        what = f"result {number} in {dtype}, [{rows}, {cols}]"
        if mine.dtype == torch.int64:
            assert torch.equal(mine.cpu(), expected), what
            continue
        expected = expected.detach().double()
        error = torch.linalg.vector_norm(mine.cpu().double() - expected)
        # Numbers too small for float16's normal ones are off by half of its smallest.
        floor = 2.0**-25 * mine.numel() ** 0.5 if dtype == torch.float16 else 0.0
        bound = tolerance(dtype) * torch.linalg.vector_norm(expected) + floor
        assert error <= bound, f"{what}: off by {error:.2e}, allowed {bound:.2e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where _ops_cpu.so and _ops_cuda.so lie")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    arguments = parser.parse_args()
    libraries = [arguments.folder / name for name in ("_ops_cpu.so", "_ops_cuda.so")]
    missing = [str(library) for library in libraries if not library.exists()]
    if missing:
        parser.error(f"there is no {', '.join(missing)}")
    for library in libraries:
        torch.ops.load_library(str(library.resolve()))
    torch.manual_seed(0)
    for device in {torch.device("cpu"), arguments.device}:
        for dtype in DTYPES:
            for rows, cols in ((300, 3), (40, 100), (5, 1000), (200, 9000), (2, 70_001)):
                check(device, dtype, rows, cols)
        print(f"every op of {arguments.folder} is right on {device}, torch {torch.__version__}")


if __name__ == "__main__":
    main()

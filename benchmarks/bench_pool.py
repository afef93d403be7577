"""Pools larger than memory: how fast they stream through the scorer, and what that takes of memory.

    python benchmarks/bench_pool.py [--samples 1000000] [--jpegs 1500] [--threads 1 2] [--csv FILE]

Synthetic images, a network of 100,000 weights (so that the stream shows and not the network), the
search as it is by default. Every pool is read alone, batch by batch, and scored:

    map            uint8 [N, 3, 32, 32] in a .npy file that is mapped; the scorer makes 0..1 of it
    tensor         the same as float32 in memory
    jpeg           a folder of 128x128 JPEGs in ImageFolder's layout, decoded and scaled to 32x32
    jpeg, workers  the same with processes that decode (--workers, 2)

The first 20,000 samples of the map are timed; the whole of it (--samples, 3 KB each, where TMPDIR
says) is scored once for the memory. That is the anonymous part of what the process holds (RssAnon
of Linux: pages of the mapped file, which the system may drop at will, do not count), looked at
every 2 ms: the peak less what was held before. Beside it stands the bound: the model, four batches
of float32 and 64 bytes a sample.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import options
import torch
from timing import Table, about, quantiles, turns
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vaal_ext.pool.batches import pool_size
from vaal_ext.scorer import LDRScorer

SHAPE = (3, 32, 32)
JPEG_SIDE = 128
BATCH = 256
SETTINGS = {"eps": 1.0, "batch_size": BATCH}
PART = 10_000  # samples written at a time
TIMED = 20_000  # of the map

Row = dict[str, object]


def write_map(path: Path, samples: int) -> np.ndarray:
    """Random pixels, written a part at a time; returns them mapped for reading."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (samples, *SHAPE))
    for start in tqdm(range(0, samples, PART), desc="writing the pool", disable=None):
        part = array[start : start + PART]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    array.flush()
    return np.load(path, mmap_mode="r")


def write_jpegs(folder: Path, count: int) -> None:
    """Smooth noise (white noise is no picture: it costs JPEG twice the time), one class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "all").mkdir(parents=True)
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image = noise.resize((JPEG_SIDE, JPEG_SIDE), Image.Resampling.BICUBIC)
        image.save(folder / "all" / f"{number:06}.jpg")


def jpeg_dataset(folder: Path) -> Dataset:
    from torchvision import datasets, transforms

    steps = [transforms.Resize(SHAPE[1:]), transforms.ToTensor()]
    return datasets.ImageFolder(folder, transforms.Compose(steps))


def read(pool: np.ndarray | DataLoader) -> None:
    """Every batch, as far as into memory."""
    if isinstance(pool, DataLoader):
        for _ in pool:
            pass
    else:
        for start in range(0, len(pool), BATCH):
            pool[start : start + BATCH].copy()


def anonymous_bytes() -> int:
    """RssAnon of this process (Linux).

    Raises:
        OSError: a system without /proc.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list that holds, when the block has ended, the largest growth of RssAnon in bytes."""
    gc.collect()
    before, growth, ended = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            growth[0] = max(growth[0], anonymous_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        ended.set()
        watcher.join()


def memory_row(model: nn.Module, mapped: np.ndarray, args: argparse.Namespace) -> Row:
    """What scoring the whole map takes at its peak, and the most that it may take."""
    scorer = LDRScorer(model, **SETTINGS, normalize=(0.0, 1.0))
    # One sample first: what libraries set up once, whatever the pool, is no part of it.
    scorer.score(mapped[:1], progress=False)
    with peak_memory() as growth:
        scorer.score(mapped, progress=sys.stderr.isatty())
    weights = sum(tensor.nbytes for tensor in model.parameters())
    bound = weights + 4 * BATCH * 4 * mapped[0].size + 64 * len(mapped)
    print(
        f"{len(mapped)} samples of a map: {growth[0] / 2**20:.1f} MiB at the peak, "
        f"bound {bound / 2**20:.1f} MiB"
    )
    return (
        {"pool": "map", "what": "memory", "samples": len(mapped), "batch_size": BATCH}
        | dict.fromkeys(("samples_per_s", *quantiles(np.ones(1))))
        | {"peak_bytes": growth[0], "bound_bytes": bound}
        | about(args.device)
    )


def speed_rows(model: nn.Module, pools: dict[str, Any], args: argparse.Namespace) -> list[Row]:
    """The rows of all pools under the present number of threads: timed and printed."""
    scorer = LDRScorer(model, **SETTINGS)
    scorers = {"map": LDRScorer(model, **SETTINGS, normalize=(0.0, 1.0))}
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, pool in pools.items():
        if not isinstance(pool, Tensor):
            calls[name, "read"] = partial(read, pool)
        calls[name, "scored"] = partial(scorers.get(name, scorer).score, pool, progress=False)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for order in turns(list(calls), args.passes):
        for key in order:
            start = time.perf_counter()
            calls[key]()
            seconds[key].append(time.perf_counter() - start)
    print(f"\nthreads {torch.get_num_threads()}: samples per second, median of {args.passes}")
    rows = []
    for (name, what), values in seconds.items():
        size = pool_size(pools[name])
        rate = size / float(np.median(values))
        print(f"{name:18}{what:8}{rate:12.0f}")
        rows.append(
            {"pool": name, "what": what, "samples": size, "batch_size": BATCH}
            | {"samples_per_s": rate, **quantiles(np.array(values))}
            | {"peak_bytes": None, "bound_bytes": None}
            | about(args.device)
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument(
        "--samples", type=options.positive, default=10**6, help="in the map, for the memory"
    )
    parser.add_argument("--jpegs", type=options.positive, default=1500)
    parser.add_argument("--workers", type=options.positive, default=2, help="that decode JPEGs")
    parser.add_argument("--passes", type=options.positive, default=3, help="over every pool")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        mapped = write_map(place / "pool.npy", args.samples)
        write_jpegs(place / "jpegs", args.jpegs)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 10))
        model.to(args.device).eval()
        torch.set_num_threads(options.threads_of(args)[0])
        # Before the rest: memory that the heap has once taken would not show as growth.
        table = Table(args.csv)
        table.add([memory_row(model, mapped, args)])
        images = jpeg_dataset(place / "jpegs")
        part = mapped[:TIMED]
        pools = {
            "map": part,
            "tensor": torch.from_numpy(part.copy()).float() / 255,
            "jpeg": DataLoader(images, batch_size=BATCH),
            "jpeg, workers": DataLoader(images, batch_size=BATCH, num_workers=args.workers),
        }
        for threads in options.threads_of(args):
            torch.set_num_threads(threads)
            table.add(speed_rows(model, pools, args))


if __name__ == "__main__":
    main()

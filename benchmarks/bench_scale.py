"""What the shards of a large pool, their reading and the choice from them cost: see SCALE.md.

    python benchmarks/bench_scale.py [--samples 10000000] [--paths 100000] [--csv FILE]

Each is done once. Memory is the growth of the process's anonymous memory at its peak (see
bench_pool.py); files go where TMPDIR says.

    write    the shards of --samples scores written, one after the other, as the scorer does
    read     the folder of them read
    select   1,000 samples chosen from them, balanced over 100 classes
    paths    a folder of --paths empty files, listed as folder:PATH does before it begins
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import options
import torch
from bench_pool import peak_memory
from timing import Table, about

from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.shards import SHARD_SIZE, read_shards
from vaal_ext.selection import select

CLASSES = 100


def shards(samples: int) -> Iterator[PoolScores]:
    """Made up, a shard at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, samples, SHARD_SIZE):
        size = min(SHARD_SIZE, samples - start)
        yield PoolScores(
            index=np.arange(start, start + size),
            ldr=rng.random(size, dtype=np.float32),
            pseudo_label=rng.integers(0, CLASSES, size),
            entropy=rng.random(size, dtype=np.float32),
            margin=rng.random(size, dtype=np.float32),
            posterior_mean=np.full(CLASSES, 1 / CLASSES),
        )


def manifest(folder: Path, samples: int) -> None:
    identity = {"num_samples": samples, "sample_index": None}
    execution = {"batch_size": 256, "mode": {}}
    found = {"identity": identity, "shard_size": SHARD_SIZE, "execution": execution}
    (folder / "manifest.json").write_text(json.dumps(found))


def measured(what: str, count: int, work: Callable[[], object]) -> tuple[dict[str, object], object]:
    """The row of the table, and what `work` gave."""
    with peak_memory() as growth:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    print(
        f"{what:<8}{count:>11,}  {seconds:8.2f} s  {1e6 * seconds / count:8.3f} us each  "
        f"{growth[0] / count:7.1f} bytes of memory each"
    )
    row = {"what": what, "count": count, "seconds": seconds, "peak_bytes": growth[0]}
    return row | about(torch.device("cpu")), result


def write(folder: Path, samples: int) -> float:
    """Seconds in the writing alone."""
    seconds = 0.0
    for number, scores in enumerate(shards(samples)):
        start = time.perf_counter()
        scores.save(folder / f"shard_{number:05d}.npz")
        seconds += time.perf_counter() - start
    return seconds


def main() -> None:
    parser = options.parser(__doc__, threads=False)
    parser.add_argument("--samples", type=options.positive, default=10_000_000)
    parser.add_argument("--paths", type=options.positive, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(args.csv)
    with tempfile.TemporaryDirectory() as temporary:
        folder, images = Path(temporary, "shards"), Path(temporary, "images")
        folder.mkdir()
        row, seconds = measured("write", args.samples, lambda: write(folder, args.samples))
        table.add([row | {"seconds": seconds}])
        print(f"        of that in writing: {1e6 * seconds / args.samples:.3f} us each")
        manifest(folder, args.samples)
        row, scores = measured("read", args.samples, lambda: read_shards(folder))
        table.add([row])
        choose = partial(select, scores.ldr, scores.pseudo_label, 1000, num_classes=CLASSES)
        table.add([measured("select", args.samples, choose)[0]])
        del scores, choose

        from torchvision.datasets import ImageFolder

        (images / "all").mkdir(parents=True)
        for number in range(args.paths):
            (images / "all" / f"{number:012d}.jpg").touch()
        table.add([measured("paths", args.paths, lambda: ImageFolder(str(images)))[0]])


if __name__ == "__main__":
    main()

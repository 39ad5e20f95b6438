"""Images a second from a folder of JPEG files, beside a plain torchvision loop; and whether memory stays flat.

2,000 files are made in a temporary folder. The training loader's random views (8 to 100 % of the area, mirrored at
random) and torchvision's (ImageFolder, v2 transforms, DataLoader with as many worker processes as there are threads
here) take turns, an epoch each. The ratio is that within a round; processor time is that of threads and processes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks._report import write_json
from waveq.train.batches import EpochLoader
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.folders import FolderSplit, list_folder

FILES, CLASSES, BATCH = 2000, 10, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_files(root: Path, count: int) -> None:
    """Smooth colours of 256 pixels by 192 to 255, some 8 KB each."""
    draws = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        colours = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        whole = colours.resize((256, 192 + number % 64), Image.Resampling.BICUBIC)
        whole.save(folder / f"{number}.jpg", quality=85)


def ours(root: Path, size: int, workers: int) -> Iterable[Any]:
    """The loader of ``waveq train``."""
    files, labels, _ = list_folder(root)
    split = FolderSplit(files=files, labels=labels, size=(size, size), mean=MEAN, std=STD, workers=workers)
    return EpochLoader(split, batch_size=BATCH, seed=0, augmentation=Augmentation(flip=True))


def torchvisions(root: Path, size: int, workers: int) -> Iterable[Any]:
    """The usual one."""
    views = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    numbers = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    data = ImageFolder(str(root), v2.Compose([*views, *numbers]))
    return DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers)


def epoch(make: Callable[[], Iterable[Any]]) -> dict[str, float]:
    """Images a second and processor time of one epoch, the start of workers included."""
    before, begun = _processor(), time.perf_counter()
    images = sum(len(x) for x, _ in make())
    seconds = time.perf_counter() - begun
    return {"images_per_second": images / seconds, "processor_ms": 1e3 * (_processor() - before) / images}


def _processor() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks folders", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    loaders = {"waveq": ours, "torchvision": torchvisions}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loaders}
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name), options.files)
        for turn in range(options.rounds):
            for which in list(loaders)[:: 1 if turn % 2 else -1]:
                found[which].append(epoch(partial(loaders[which], Path(name), options.size, options.workers)))
            memory.append(_memory_mib())
    print(f"{'':<12} {'images/s':>9} {'processor ms an image':>22}")
    for which, rows in found.items():
        speed, taken = (statistics.median(row[key] for row in rows) for key in ("images_per_second", "processor_ms"))
        print(f"{which:<12} {speed:9.0f} {taken:22.2f}")
    ratios = [
        mine["images_per_second"] / theirs["images_per_second"] for mine, theirs in zip(*found.values(), strict=True)
    ]
    print(f"ratio, median of rounds: {statistics.median(ratios):.2f}, {min(ratios):.2f}-{max(ratios):.2f}")
    print(f"memory after the first round and the last: {memory[0]:.0f} and {memory[-1]:.0f} MiB")
    if options.json:
        write_json(options.json, {"options": vars(options), "rounds": found, "ratios": ratios, "memory_mib": memory})
    return 0

"""One row of table5 for one seed: trained from the seed's float parser, measured, kept in a folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import waveq
from benchmarks.treebank.batches import Example, Labels, encode, endless
from benchmarks.treebank.parser import Parser, parsed
from benchmarks.treebank.pretrained import Pretrained
from benchmarks.treebank.scores import score
from benchmarks.treebank.settings import HEADS, ROWS, Setting
from waveq._archive import load_archive, save_archive
from waveq._files import write_json
from waveq._reading import read_object
from waveq.zoo.datasets.conllu import Sentence, write_conllu
from waveq.zoo.datasets.treebanks import Treebank

__all__ = ["Run", "do"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a result depends on, but for the data themselves."""

    treebank: str
    encoder: str
    row: str
    seed: int
    setting: Setting
    quantizer: str = "lsq"

    def key(self) -> str:
        """A name for its results: the same for the same run, another one for any other."""
        told = {**asdict(self), "attach": ROWS[self.row]}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]

    def path(self, folder: Path) -> Path:
        """The file of its result, which is there once it is finished."""
        return folder / f"{self.key()}.json"


def do(run: Run, treebank: Treebank, pretrained: Pretrained, folder: Path, device: str) -> dict[str, Any]:
    """The result of a run: read from the folder, or trained and written there, with the parsed test part beside it.

    Returns:
        ``upos``, ``uas`` and ``las`` of the test part in percent, the same of the validation part with ``validation_``
        before them, ``bits`` by layer and ``mean_bits`` of the encoder's layers (32 in float), ``seconds``, and the
        ``warnings`` of the search for bits.
    """
    path = run.path(folder)
    if path.exists():
        result: dict[str, Any] = read_object(path)["result"]
        return result
    started = time.perf_counter()
    data = _Data.of(treebank, pretrained, run.setting)
    parser = _float_parser(run, data, pretrained, folder, device)
    told = ROWS[run.row]
    wq, steps, warnings = (None, run.setting.steps, []) if told is None else _attached(parser, run, data, told)
    _train(parser, wq, run, data, steps, seed=run.seed + 1000)
    bits: dict[str, int] = {}
    if wq is not None:
        bits = dict(wq.policy())
        wq.finalize()
    test = treebank.test()
    found = parsed(parser, data.examples(test), test)
    held_out = treebank.validation[: run.setting.validation_sentences or None]
    validation = score(held_out, parsed(parser, data.examples(held_out), held_out))
    result = {
        **asdict(score(test, found)),
        **{f"validation_{name}": value for name, value in asdict(validation).items()},
        "bits": bits,
        "mean_bits": sum(bits.values()) / len(bits) if bits else 32.0,
        "seconds": time.perf_counter() - started,
        "warnings": warnings,
    }
    write_conllu(folder / f"{run.key()}.conllu", found)
    write_json(path, {"run": asdict(run), "result": result})
    return result


@dataclass(frozen=True)
class _Data:
    """The training part as numbers, and how others become numbers too."""

    train: list[Example]
    labels: Labels
    pretrained: Pretrained

    @classmethod
    def of(cls, treebank: Treebank, pretrained: Pretrained, setting: Setting) -> _Data:
        order = torch.randperm(len(treebank.train), generator=torch.Generator().manual_seed(0)).tolist()
        chosen = [treebank.train[place] for place in order[: setting.sentences or None]]
        labels = Labels.of(chosen)
        return cls(_encoded(chosen, labels, pretrained), labels, pretrained)

    def examples(self, sentences: tuple[Sentence, ...]) -> list[Example]:
        return _encoded(sentences, self.labels, self.pretrained)


def _encoded(sentences: Any, labels: Labels, pretrained: Pretrained) -> list[Example]:
    return encode(sentences, pretrained.pieces, labels, most_pieces=pretrained.encoder.config.most_pieces)


def _fresh(run: Run, data: _Data, pretrained: Pretrained, device: str) -> Parser:
    """The pretrained encoder with heads that the seed draws; embeddings stay as they are in all that follows."""
    torch.manual_seed(run.seed)
    encoder = type(pretrained.encoder)(pretrained.encoder.config)
    encoder.load_state_dict(pretrained.encoder.state_dict())
    for embedding in (encoder.word, encoder.position, encoder.token_type):
        embedding.weight.requires_grad_(False)
    setting = run.setting
    parser = Parser(
        encoder, data.labels, arc_size=setting.arc_size, relation_size=setting.relation_size, dropout=setting.dropout
    )
    return parser.to(device)


def _float_parser(run: Run, data: _Data, pretrained: Pretrained, folder: Path, device: str) -> Parser:
    """The parser that all rows of a seed start from: trained once, then read from the folder."""
    parser = _fresh(run, data, pretrained, device)
    path = folder / f"float-{_alike(run).key()}.pt"
    if path.exists():
        parser.load_state_dict(load_archive(path))
        return parser
    rates = (run.setting.float_rate, run.setting.float_rate * run.setting.head_factor)
    _train(parser, None, run, data, run.setting.float_steps, seed=run.seed, rates=rates)
    save_archive(path, parser.state_dict())
    return parser


def _alike(run: Run) -> Run:
    """The same for all runs that start from one float parser."""
    setting = replace(run.setting, validation_sentences=0, steps=0, search_share=0.0, rate=0.0, scale_rate=0.0)
    return replace(run, row="float", quantizer="", setting=setting)


def _attached(parser: Parser, run: Run, data: _Data, told: Mapping[str, Any]) -> tuple[waveq.WaveQ, int, list[str]]:
    """The handle of the run with its final bits, the steps that it has, and what a search for bits warns of.

    Where bits are learned, the search is done and rewound.
    """
    steps = run.setting.steps
    inputs = {f"encoder.{name}": 8 for name, part in parser.encoder.named_modules() if isinstance(part, nn.Linear)}
    given = {**told, "quantizer": run.quantizer, "skip": HEADS, "activation_bits": inputs}
    if told["bits"] != "learn":
        return waveq.attach(parser, total_steps=steps, **given), steps, []
    searching = round(run.setting.search_share * steps)
    wq = waveq.attach(parser, total_steps=searching, schedule="search", **given)
    _train(parser, wq, run, data, searching, seed=run.seed + 1000)
    warnings = wq.diagnose()
    return waveq.rewind(wq, parser, total_steps=steps - searching), steps - searching, warnings


def _train(
    parser: Parser,
    wq: waveq.WaveQ | None,
    run: Run,
    data: _Data,
    steps: int,
    *,
    seed: int,
    rates: tuple[float, float] | None = None,
) -> None:
    """Adam with a rate that rises over a tenth of the steps and falls along a cosine."""
    encoder_rate, head_rate = rates or (run.setting.rate, run.setting.rate)
    scale_rate = encoder_rate * run.setting.scale_rate
    groups = [
        {"params": [each], "lr": scale_rate if _is_scale(name) else encoder_rate if _is_encoder(name) else head_rate}
        for name, each in parser.named_parameters()
        if each.requires_grad
    ]
    optimizer = torch.optim.Adam(groups)
    shape = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_then_cosine(step, steps))
    torch.manual_seed(seed)  # dropout
    device = next(parser.parameters()).device.type
    stream = endless(data.train, run.setting.batch, device, torch.Generator().manual_seed(seed))
    parser.train()
    for batch in itertools.islice(stream, steps):
        loss = parser.loss(batch)
        if wq is not None:
            loss = loss + wq.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        shape.step()
        if wq is not None:
            wq.step()


def _is_encoder(name: str) -> bool:
    return name.startswith("encoder.")


def _is_scale(name: str) -> bool:
    return "parametrizations." in name and not name.endswith(".original")


def _warm_then_cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

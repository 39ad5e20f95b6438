"""What waveq.export writes is read by the program it is for, weights bit by bit; each skips without its package."""

from __future__ import annotations

import pytest

from benchmarks.reach._consumers import CONSUMERS
from benchmarks.reach.export import NETWORKS, exported, finalised, reads
from waveq.exporting.c_check import find_compiler
from waveq.exporting.door import SUFFIXES


@pytest.mark.slow
@pytest.mark.parametrize("to", CONSUMERS)
@pytest.mark.parametrize("name", ["SimpleNet-5", "BERT, 2 layers of 128"])
def test_every_target_is_read_by_its_program(name: str, to: str) -> None:
    consumer = CONSUMERS[to]
    pytest.importorskip(consumer.package, reason=f"needs {consumer.package}")
    if name.startswith("BERT"):
        pytest.importorskip("transformers", reason="needs waveq[hf]")
    if not reads(consumer, NETWORKS[name]):
        pytest.skip("not for this network")
    if to == "c" and find_compiler() is None:
        pytest.skip("needs a C compiler")
    model, policy, inputs = finalised(NETWORKS[name], {"activation_bits": 8, "activation_quantizer": "lsq"})
    outcome = exported(model, policy, inputs, to, consumer)
    assert outcome.weights_equal == outcome.layers
    assert outcome.difference <= 1e-5
    assert outcome.argmax_equal == outcome.samples


def test_every_target_that_computes_or_is_read_has_a_program() -> None:
    assert set(CONSUMERS) == set(SUFFIXES)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripes_sim import CostTable, _lanes
from tests import reference_stripes as slow


def random_table(layers: int, bits: tuple[int, ...], seed: int) -> CostTable:
    rng = np.random.default_rng(seed)
    keys = ("cycles", "energy_pj", "compute_cycles", "weight_bytes")
    return CostTable(
        names=tuple(f"layer{i}" for i in range(layers)),
        bits=bits,
        costs={key: rng.random((layers, len(bits))) for key in keys},
        fixed={key: float(rng.random()) for key in keys},
        hardware="random",
    )


@pytest.fixture(params=["lanes", "plain"], scope="module")
def kernels(request):
    """Both ways of looking up, on processors that have both."""
    if request.param == "lanes" and not _lanes.available():
        pytest.skip("this processor does not look eight numbers up at once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lanes, "available", lambda: request.param == "lanes")
        yield request.param


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.sampled_from([1, 2, 7, 8, 9, 21, 70]),
    st.sampled_from(
        [(4,), (2, 3, 4, 5, 6, 7, 8), (2, 3, 4, 5, 8), (1, 16), tuple(range(1, 17)), (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    ),
    st.sampled_from([1, 2, 3, 600, 1500]),
    st.integers(0, 99),
)
def test_compiled_totals_equal_the_numpy_twin(kernels, layers, bits, count, seed):
    table = random_table(layers, bits, seed)
    policies = np.random.default_rng(seed).choice(np.array(bits, dtype=np.uint8), size=(count, layers))
    kept = policies.copy()
    got = table.score(policies, objectives=("energy_pj", "cycles", "weight_bytes"))
    expected = slow.totals(table.costs, bits, policies)
    assert list(got.columns) == ["energy_pj", "cycles", "weight_bytes"]
    for key in got:
        np.testing.assert_allclose(got[key], expected[key] + table.fixed[key], rtol=1e-13)
    assert (policies == kept).all()


@pytest.mark.slow
@pytest.mark.parametrize("bad", [0, 1, 9, 255])
@pytest.mark.parametrize("row", [0, 700, 1199])
def test_bits_outside_the_table_are_found_wherever_they_stand(kernels, bad, row):
    table = random_table(21, tuple(range(2, 9)), 0)
    policies = np.full((1200, 21), 4, dtype=np.uint8)
    policies[row, 20] = bad
    with pytest.raises(ValueError, match=f"row {row} of policies gives layer 'layer20' {bad} bits, but the table has"):
        table.score(policies)


def test_bits_that_a_table_with_gaps_lacks_are_found(kernels):
    table = random_table(3, (2, 3, 8), 0)
    with pytest.raises(ValueError, match="row 1 of policies gives layer 'layer2' 5 bits"):
        table.score(np.array([[2, 3, 8], [2, 3, 5]], dtype=np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["lanes"], indirect=True)
@pytest.mark.parametrize("layers", [1, 8, 21, 100])
def test_lanes_add_layer_after_layer_to_the_last_bit(kernels, layers):
    table = random_table(layers, tuple(range(2, 9)), 0)
    policies = np.random.default_rng(0).integers(2, 9, size=(67, layers), dtype=np.uint8)
    expected = np.full(len(policies), table.fixed["cycles"])
    for layer, bits in enumerate(policies.T):
        expected += table.cycles[layer, bits - 2]
    assert (table.score(policies)["cycles"] == expected).all()


def test_no_policies_give_an_empty_frame():
    assert random_table(3, (2, 3), 0).score(np.empty((0, 3), dtype=np.uint8)).shape == (0, 3)

from __future__ import annotations

import pytest

from stripes_sim import BitFusion, LayerShape


def test_bitfusion_splits_units_by_the_published_factor():
    layer = LayerShape(name="c", kind="linear", in_channels=4096, out_channels=320, tokens=7)
    steps = 7 * 10
    for weight_bits, activation_bits, depth in (
        (2, 2, 16),
        (4, 4, 64),
        (3, 4, 64),
        (5, 8, 256),
        (8, 8, 256),
        (1, 1, 16),
    ):
        assert BitFusion().run([layer], weight_bits, activation_bits).compute_cycles == steps * depth
    assert BitFusion().run([layer], 16, 8).compute_cycles == 2 * steps * 256
    assert BitFusion().run([layer], 16, 16).compute_cycles == 4 * steps * 256


def test_bitfusion_unrolls_the_first_layer():
    image = LayerShape(
        name="c", kind="conv", in_channels=3, out_channels=32, kernel_size=3, input_size=(8, 8), padding=1
    )
    assert BitFusion().run([image], 8, 8).compute_cycles == 64 * 2
    assert BitFusion(space_to_depth=False).run([image], 8, 8).compute_cycles == 64 * 9


def test_a_unit_too_narrow_to_split_is_refused_when_the_machine_is_made():
    with pytest.raises(ValueError, match=r"BitFusion: a spatially composed unit is at least 2 bits wide, .*_bits=1"):
        BitFusion(pe_width_bits=1)

from __future__ import annotations

import re

import pytest

from stripes_sim import (
    BitFusion,
    DaDianNao,
    DynamicStripes,
    Laconic,
    Loom,
    Pragmatic,
    Stripes,
    hardware_names,
    load_hardware,
    load_machine,
)
from stripes_sim.dataflows import dataflow_named
from stripes_sim.hardware import UNITS


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("stripes", Stripes()),
        ("stripes_activations", Stripes(name="Stripes (activations)", serial="activations")),
        ("Stripes-Activations", Stripes(name="Stripes (activations)", serial="activations")),
        ("dadiannao", DaDianNao()),
        ("loom", Loom()),
        ("bitfusion", BitFusion()),
        ("dynamic-stripes", DynamicStripes()),
        ("pragmatic", Pragmatic()),
        ("laconic", Laconic()),
    ],
)
def test_files_that_ship_hold_the_presets(name, preset):
    assert load_hardware(name) == preset


@pytest.mark.parametrize("name", hardware_names())
def test_every_number_of_a_file_has_a_source_that_says_how_sure_it_is(name):
    machine = load_machine(name)
    assert set(machine.sources) <= set(UNITS)
    assert all(re.match(r"(measured|published|assumed): ", source) for source in machine.sources.values())
    named = [row for row in machine.rows() if row["source"].startswith("default")]
    assert {row["parameter"] for row in named} <= {
        "name", "serial_bits", "data_width_bits", "buffer_banks", "buffer_bank_width_bits", "compat",
        "group_columns", "trim_zeros", "dynamic_weights", "column_registers", "first_stage_bits", "booth",
    }  # fmt: skip
    used = dataflow_named(machine.hardware.serial).options
    assert not used & {row["parameter"] for row in named}
    assert "area_total_mm2" in str(machine)


def test_a_users_file_changes_what_it_names(tmp_path):
    file = tmp_path / "chip.toml"
    file.write_text('base = "loom"\nname = "Mine"\ntiles = 4\n[sources]\ntiles = "measured: our layout"\n')
    machine = load_machine(file)
    assert machine.hardware == Loom(name="Mine", tiles=4)
    assert machine.sources == {"tiles": "measured: our layout"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clock_hz = -5", "chip.toml: clock_hz must be more than 0 Hz, but it is -5"),
        ("lanez = 5", "chip.toml: unknown key 'lanez'; did you mean 'lanes'?"),
        ('lanes = "many"', "chip.toml: lanes must be a number of products, but it is 'many'"),
        ('base = "strips"', "'bitfusion', 'dynamic_stripes', 'pragmatic', 'laconic'), but it is 'strips'"),
        ("lanes = ", "chip.toml: not valid TOML"),
        ("[sources]\nlanse = 'x'", "chip.toml: [sources] lanse = 'x' is no text for a parameter; did you mean"),
        ("[sources]\nlanes = 3", "chip.toml: [sources] lanes = 3 is no text"),
        ("sources = 3", "chip.toml: sources must be a table of texts"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_key_and_value(tmp_path, text, message):
    file = tmp_path / "chip.toml"
    file.write_text(text + "\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_hardware(str(file))


def test_unknown_names_and_missing_files_say_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no hardware 'strips'; did you mean 'stripes'"):
        load_hardware("strips")
    with pytest.raises(ValueError, match=r"nothing.toml: cannot be read \(No such file"):
        load_hardware(tmp_path / "nothing.toml")

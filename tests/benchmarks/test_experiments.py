"""Tables 1 and 2, figure 4, hardware-aware bits, defaults: end to end on digits, and their arithmetic by hand."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import publish
from benchmarks.__main__ import main as dispatch
from benchmarks.lab.settings import setting
from benchmarks.paper import defaults, experiments, figure4, hardware, table1, table2

TINY = ["--budget", "tiny", "--dataset", "digits", "--seeds", "0", "1", "--processes", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


def run(command, folder, tmp_path, *more):
    options = [*TINY, "--networks", "digitsnet", "--folder", str(folder), "--out", str(tmp_path), *more]
    assert command.main(options) == 0


def read(tmp_path, name):
    written = json.loads((tmp_path / f"{name}.json").read_text())
    return pd.DataFrame(written["rows"]["lines"], columns=written["rows"]["columns"])


@pytest.mark.slow
def test_table2_has_every_base_alone_and_with_the_wave(folder, tmp_path, capsys):
    run(table2, folder, tmp_path, "--bits", "2")
    rows = read(tmp_path, "table2")
    assert len(rows) == 2 * (1 + 2 * len(table2.BASES))
    assert set(rows.base) == {"float", *table2.BASES}
    assert "won back" in capsys.readouterr().out


def test_table2_pairs_seeds_and_gives_the_share_won_back():
    rows = pd.DataFrame(
        [("net", 32, seed, "float", False, 90.0, False) for seed in (0, 1)]
        + [("net", 2, 0, "LSQ", False, 80.0, False), ("net", 2, 1, "LSQ", False, 86.0, True)]
        + [("net", 2, 0, "LSQ", True, 83.0, False), ("net", 2, 1, "LSQ", True, 87.0, False)],
        columns=["network", "bits", "seed", "base", "wave", "test", "diverged"],
    )
    line = table2.compare(rows).iloc[0]
    assert line["difference"] == "2.00 (1.00)"  # 3 and 1
    assert line["won back"] == "29 %"  # 2 of 7
    assert line["diverged"] == 1


def test_table2_says_nothing_of_a_share_where_nothing_is_lost():
    rows = pd.DataFrame(
        [
            ("net", 32, 0, "float", False, 90.0, False),
            ("net", 2, 0, "LSQ", False, 89.5, False),
            ("net", 2, 0, "LSQ", True, 89.9, False),
        ],
        columns=["network", "bits", "seed", "base", "wave", "test", "diverged"],
    )
    assert table2.compare(rows).iloc[0]["won back"] == "-"


@pytest.mark.slow
def test_table1_learned_policies_keep_their_budget(folder, tmp_path):
    run(table1, folder, tmp_path, "--mean-bits", "3.5")
    rows = read(tmp_path, "table1")
    assert rows[rows.method == "learned, <= 3.5 bits"].mean_bits.max() <= 3.5
    assert (rows[rows.method == "uniform 4"].mean_bits == 4).all()


@pytest.mark.slow
def test_figure4_draws_the_space_and_keeps_the_budgets(folder, tmp_path):
    run(figure4, folder, tmp_path, "--bits", "2", "4", "--shares", "0.4", "--base", "dorefa")
    rows = read(tmp_path, "figure4_digitsnet_dorefa")
    assert (rows.method == figure4.ENUMERATED).sum() == 2 * 2**3
    eight_bits = 2 * rows[rows.policy == "4 4 4 4"].energy_pj.iloc[0]  # energy is nearly proportional to bits
    assert rows[rows.method != figure4.ENUMERATED].energy_pj.max() <= 0.41 * eight_bits
    assert (tmp_path / "figure4_digitsnet_dorefa.png").stat().st_size > 10_000


def test_figure4_names_an_unknown_network(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(figure4, folder, tmp_path, "--networks", "vgg11")
    assert stop.value.code == 2
    assert "'vgg11': budget tiny enumerates digitsnet" in capsys.readouterr().err


def test_distances_are_to_the_best_policy_of_no_more_energy_in_the_same_seed():
    space = [
        ("2 2", 1.0, (70.0, 72.0)),
        ("2 3", 2.0, (80.0, 81.0)),
        ("3 2", 2.5, (75.0, 75.0)),
        ("3 3", 3.0, (85.0, 84)),
    ]
    rows = [
        {
            "method": figure4.ENUMERATED,
            "policy": p,
            "energy_pj": e,
            "mean_bits": 2.5,
            "seed": s,
            "test": a,
            "validation": a,
        }
        for p, e, tests in space
        for s, a in enumerate(tests)
    ]
    rows += [
        {"method": "WaveQ", "policy": "2 4", "energy_pj": e, "mean_bits": 3.0, "seed": s, "test": a, "validation": 0.0}
        for e, s, a in ((2.6, 0, 79.0), (3.0, 1, 85.0), (0.5, 0, 60.0))
    ]
    frame = pd.DataFrame(rows)
    front = figure4.frontier(frame)
    assert list(front.index) == ["2 2", "2 3", "3 3"]
    found = figure4.distances(frame, front)
    np.testing.assert_allclose(found.to_numpy(), [80.0 - 79.0, 84.0 - 85.0, np.nan])


def test_hardware_reads_both_curves_at_equal_accuracy():
    columns = ["network", "seed", "weighting", "test", "energy_pj"]
    plain = [("net", 0, "plain", 80.0, 10.0), ("net", 0, "plain", 90.0, 20.0)]
    aware = [("net", 0, "by energy", 80.0, 8.0), ("net", 0, "by energy", 85.0, 12.0)]
    rows = pd.DataFrame(plain + aware, columns=columns)
    found = hardware.savings(rows).set_index("accuracy").saved
    assert found[80.0] == pytest.approx(0.2)
    assert found[85.0] == pytest.approx(1 - 12 / 15)
    assert 90.0 not in found


def test_hardware_reads_no_accuracy_out_of_range_and_no_dominated_point():
    curve = pd.DataFrame({"test": [80.0, 70.0, 90.0], "energy_pj": [10.0, 15.0, 20.0]})
    assert hardware.energy_at(curve, 85.0) == pytest.approx(15.0)
    assert np.isnan(hardware.energy_at(curve, 75.0))


@pytest.mark.slow
def test_hardware_runs(folder, tmp_path, capsys):
    run(hardware, folder, tmp_path, "--prices", "0.02", "0.5")
    rows = read(tmp_path, "hardware")
    assert set(rows.weighting) == {"plain", "by energy"}
    assert len(rows) == 2 * 2 * 2


@pytest.mark.slow
@pytest.mark.parametrize(("options", "name"), [((), "defaults"), (("--scratch",), "defaults_scratch")])
def test_defaults_runs(folder, tmp_path, options, name):
    run(defaults, folder, tmp_path, *options)
    rows = read(tmp_path, name)
    learned = rows[rows.method == "learned"]
    assert learned.least_bits.min() >= 2
    assert learned.most_bits.max() <= 8
    assert not rows.diverged.any()


def test_every_default_network_has_a_setting():
    for command in (table1, table2, hardware, defaults):
        for network in command.NETWORKS:
            for budget in ("quick", "full"):
                assert setting(network, budget).network == network
    for budget, networks in figure4.LAYERS.items():
        for network in networks:
            assert setting(network, budget).network == network


def test_pages_show_what_the_results_hold():
    assert publish.main(["--check"]) == 0


def test_publish_fills_a_block_and_leaves_the_rest(tmp_path, monkeypatch):
    result = {
        "provenance": {"versions": {"torch": "2", "numpy": "1"}},
        "arguments": {"dataset": "digits", "budget": "tiny", "seeds": [0, 1]},
        "table": {"columns": ["a", "b"], "lines": [["x", "1.0 (0.5)"]]},
        "verdicts": {"digits, 0.9": "runs differ as much"},
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "made.json").write_text(json.dumps(result))
    (tmp_path / "README.md").write_text("before\n<!-- table made -->\nold\n<!-- end made -->\nafter\n")
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")
    assert publish.main(["--check"]) == 1
    assert publish.main([]) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- table made -->\n| a | b |")
    assert text.endswith("<!-- end made -->\nafter\n")
    assert "| x | 1.0 (0.5) |" in text
    assert "old" not in text
    assert "seeds 0 1" in text
    assert "- digits, 0.9: runs differ as much." in text
    assert publish.main(["--check"]) == 0


def test_table2_no_training_stands_for_two_columns():
    args = argparse.Namespace(budget="tiny", dataset="digits", bases=list(table2.BASES))
    jobs = table2.jobs_of("digitsnet", 2, 0, args)
    assert len({job.key() for job in jobs.values()}) == len(jobs)  # no base's wave is the base alone


@pytest.mark.slow
def test_experiments_runs_what_is_asked_for_with_its_options_and_goes_on(folder, tmp_path, capsys):
    run(experiments, folder, tmp_path, "--prices", "0.5", "--only", "hardware")
    assert len(read(tmp_path, "hardware")) == 2 * 2
    assert not (tmp_path / "defaults.json").exists()
    kept = json.loads((tmp_path / "minutes.json").read_text())
    assert list(kept) == [
        f"hardware --budget tiny --dataset digits --networks digitsnet --prices 0.5 --seeds {seeds}"
        for seeds in ("0", "0 1")
    ]
    assert "2 pieces, 0 done, 2 left: minutes not known" in capsys.readouterr().out
    (tmp_path / "hardware.json").unlink()
    run(experiments, folder, tmp_path, "--prices", "0.5", "--only", "hardware")
    assert "2 of 2 pieces are done" in capsys.readouterr().out
    assert not (tmp_path / "hardware.json").exists()  # nothing was left to do
    run(experiments, folder, tmp_path, "--prices", "0.5", "--only", "hardware", "--again")
    assert len(read(tmp_path, "hardware")) == 2 * 2


class Clock:
    """Stands for ``experiments.time``; each experiment that is run turns it on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def pretended(monkeypatch):
    """Experiments that take 1.5 times the minutes they are expected to take; what each was told."""
    clock, told = Clock(), []

    def of(path):
        module = path.rpartition(".")[2]

        def main(argv):
            seeds = argv[argv.index("--seeds") + 1 : argv.index("--device")]
            told.append((module, seeds))
            name = argv[argv.index("--name") + 1] if "--name" in argv else module
            clock.seconds += 60 * 1.5 * experiments.EXPERIMENTS[name].core_minutes / 2
            return 0

        return argparse.Namespace(main=main)

    monkeypatch.setattr(experiments, "time", clock)
    monkeypatch.setattr(experiments, "importlib", argparse.Namespace(import_module=of))
    return told


def test_quick_experiments_fit_two_hours_of_two_cores_in_pieces_of_twenty_minutes():
    minutes = [each.core_minutes / 2 for each in experiments.EXPERIMENTS.values()]
    assert max(minutes) < 20
    assert 3 * sum(minutes) < 120


def test_experiments_stop_in_time_and_go_on(pretended, tmp_path, capsys):
    words = ["--processes", "2", "--out", str(tmp_path), "--folder", str(tmp_path)]
    assert experiments.main([*words, "--plan"]) == 0
    assert pretended == []
    count = 3 * len(experiments.EXPERIMENTS)
    assert f"{count} pieces, 0 done, {count} left" in capsys.readouterr().out
    assert experiments.main([*words, "--minutes", "30"]) == 0
    # 3 x 6.75, then 5.6 more fit and the piece after them does not, at the pace of those before
    assert pretended == [("claim", ["0"]), ("claim", ["0", "1"]), ("claim", ["0", "1", "2"]), ("claim", ["0"])]
    said = capsys.readouterr().out
    assert "4 of 42 pieces are done, 25.9 minutes were spent" in said
    assert "--minutes 30 is over before claim_quick_bitops; the same command goes on" in said
    assert experiments.main([*words, "--minutes", "9"]) == 0
    assert "done in 6.8" in capsys.readouterr().out
    assert pretended[4:] == [("claim", ["0", "1"])]
    while (done := len(pretended)) < count:
        assert experiments.main(words) == 0
        assert len(pretended) > done
    assert experiments.main(words) == 0
    assert len(pretended) == count


def test_experiments_knows_every_experiment():
    here = Path(experiments.__file__).parent
    users = {path.stem for path in here.glob("[!_]*.py") if "add_options(parser" in path.read_text()}
    known = {each.module for each in experiments.EXPERIMENTS.values()} | set(experiments.BY_THEMSELVES)
    assert users - {"experiments"} == known


def test_an_unknown_network_is_named_without_a_traceback(capsys):
    assert dispatch(["table2", "--networks", "vgg12", "--processes", "0"]) == 2
    said = capsys.readouterr().err
    assert "--networks 'vgg12': no setting; did you mean 'vgg11'?" in said
    assert "Traceback" not in said

"""The road of scores, machines, tables and frontiers, in a process that has none of the extras' packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waveq._lazy import _ALSO, _EXTRAS

ROOT = Path(__file__).resolve().parents[2]

HIDE = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {sorted({*_EXTRAS, *_ALSO, "sklearn"})!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
ROAD = """
import contextlib, io
from pathlib import Path
import numpy as np
import pareto, stripes_sim, waveq
from waveq.cli.app import main

def call(*words, code=0):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        assert main(words) == code, (words, error.getvalue())
    return out.getvalue(), error.getvalue()

Path("t.parquet").write_bytes(b"PAR1")
layers = [
    stripes_sim.LayerShape(name="conv", kind="conv", in_channels=3, out_channels=8, kernel_size=3, input_size=(8, 8)),
    stripes_sim.LayerShape(name="fc", kind="linear", in_channels=288, out_channels=10),
]
stripes_sim.write_workload("net.csv", layers)
policy = waveq.Policy({"conv": 4, "fc": 2})
policy.save("bits.json")
assert "stripes" in call("hardware")[0]
assert "total" in call("score", "bits.json", "--workload", "net.csv", "--breakdown", "--roofline")[0]
assert "tokens per second" in call("score", "4", "--llm", "llama-7b", "--hardware", "bitfusion")[0]
assert "efficient" in call("explore", "bits.json", "--workload", "net.csv", "--grid", "tiles=1,2")[0]
Path("table.csv").write_text("conv,fc,accuracy,energy_pj\\n2,2,80,1\\n4,2,90,2\\n8,8,85,3\\n")
assert "2 of 3 policies" in call("frontier", "table.csv", "--policy", "bits.json", "--html")[0]
assert waveq.sim.Stripes is stripes_sim.Stripes and waveq.pareto.search is pareto.search

space = pareto.DesignSpace({"conv": (2, 4, 8), "fc": (2, 4, 8)})
table = stripes_sim.cost_table(layers, stripes_sim.Stripes(), bits=(2, 4, 8))
energy = lambda rows: table.score(rows)["energy_pj"].to_numpy()
found = pareto.search(space, lambda rows: rows.sum(axis=1).astype(float), cost=energy, evaluations=6, progress=False)
assert len(found.frame) >= 6

says = "this needs torch, which is not installed: pip install 'waveq[train]'"
verbs = ["demo"], ["score", "4", "--model", "lenet"], ["data"], ["train"], ["sweep", "--grid", "seed=0"]
for words in verbs:
    assert says in call(*words, code=1)[1], words
assert call("frontier", "t.parquet", code=1)[1] == says.replace("torch", "pyarrow").replace("train", "parquet") + "\\n"
assert not Path("runs", "sweep-simplenet5").exists()
for name in set(waveq.__all__) - {"Policy", "pareto", "plot_learning", "sim"}:
    try:
        getattr(waveq, name)
    except ModuleNotFoundError as error:
        assert str(error) == f"waveq.{name} needs torch, which is not installed: pip install 'waveq[train]'"
    else:
        raise AssertionError(name)
try:
    import waveq.integrations.lightning
except ModuleNotFoundError as error:
    assert str(error) == "waveq.integrations needs torch, which is not installed: pip install 'waveq[train]'"
"""


@pytest.mark.slow
def test_scores_machines_tables_and_frontiers_need_no_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    words = [sys.executable, "-W", "error", "-c", HIDE + ROAD]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pareto import DesignSpace, Store, engines, run_campaign
from tests.pareto.evaluators import Deadly, Slow, failing, value

SPACE = DesignSpace({"conv": (2, 3, 4), "fc1": (2, 3, 4, 5), "fc2": (2, 4)})
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (pip install 'waveq[ray]')"
)
ENGINES = ["processes", pytest.param("ray", marks=needs_ray)]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run.sqlite", layers=SPACE.names, fingerprint={"seed": 0}) as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster():
    """One local cluster for all tests: starting it is what takes long."""
    if importlib.util.find_spec("ray") is None:
        yield
        return
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def complete(frame):
    np.testing.assert_array_equal(frame[list(SPACE.names)].to_numpy(), SPACE.policies())
    np.testing.assert_array_equal(frame["accuracy"], value(SPACE.policies()))


@pytest.mark.parametrize("engine", ENGINES)
def test_same_results_as_one_process(engine, store, cluster):
    complete(run_campaign(SPACE, Slow(0.01), store, engine=engine, workers=2, unit_rows=5, progress=False))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_killed_halfway_costs_nothing(engine, store, cluster, tmp_path):
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    deadly = Deadly(deaths, first=3, times=1)
    complete(run_campaign(SPACE, deadly, store, engine=engine, workers=2, unit_rows=4, progress=False))
    assert len(list(deaths.iterdir())) == 1


@pytest.mark.slow
def test_a_policy_that_always_kills_is_recorded_and_its_neighbours_are_measured(store, tmp_path):
    deaths, space = tmp_path / "deaths", DesignSpace({"conv": (2, 3, 4), "fc1": (2,), "fc2": (4,)})
    deaths.mkdir()
    with pytest.warns(UserWarning, match=r"'fc2': 4\} \(its worker died 3 times \(out of memory\?\)\)"):
        frame = run_campaign(space, Deadly(deaths, first=3, times=99), store, workers=1, progress=False)
    assert frame["conv"].tolist() == [2, 4]
    assert store.failures()["conv"].tolist() == [3]
    assert len(list(deaths.iterdir())) == 6  # in the pool, as three, as two and three times alone


@pytest.mark.slow
def test_an_evaluator_that_always_kills_ends_the_run_and_the_rest_is_kept(store, tmp_path):
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    rows = SPACE.policies()
    run_campaign(rows[rows[:, 0] != 3], value, store, engine="serial", progress=False)
    with pytest.raises(RuntimeError, match=r"died 3 times on each of 2 policies, such as \[3, .* none was measured"):
        run_campaign(SPACE, Deadly(deaths, first=3, times=99), store, workers=1, unit_rows=1, progress=False)
    assert len(store) == 16


@pytest.mark.slow
def test_a_script_that_starts_itself_again_is_told_so(tmp_path):
    script = tmp_path / "campaign.py"
    script.write_text(
        "import sys\nfrom pareto import DesignSpace, Store, run_campaign\nfrom tests.pareto.evaluators import value\n"
        "space = DesignSpace({'a': (2, 3), 'b': (2, 3)})\n"
        "with Store(sys.argv[1] + '/run.sqlite', layers=space.names, fingerprint={}) as store:\n"
        "    run_campaign(space, value, store, workers=1, progress=False)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert "RuntimeError: worker processes died 3 times as they started (a script without `if __name__" in done.stderr


class FakeRay:
    """As much of Ray as the engine asks for: tasks run when they are fetched, and raise what `fate` says of them."""

    class exceptions:  # noqa: N801 (Ray's name)
        class WorkerCrashedError(Exception):
            """A task lost its process too often."""

        class NodeDiedError(Exception):
            """Or its machine."""

        class OutOfMemoryError(Exception):
            """Or had it taken away."""

        class RaySystemError(Exception):
            """The raylet is gone."""

        class LocalRayletDiedError(Exception):
            """The same, found by its silence."""

    def __init__(self, fate):
        self.fate, self.cancelled = fate, 0

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 2.0}

    def put(self, evaluate):
        return evaluate

    def remote(self, _task):
        made = SimpleNamespace(remote=lambda shared, unit: Reference(shared[0], unit, self))
        return SimpleNamespace(options=lambda **_options: made)

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        return reference.fetch()

    def cancel(self, _reference, force):
        self.cancelled += force


class Reference:
    def __init__(self, evaluate, unit, ray):
        self.evaluate, self.unit, self.ray = evaluate, unit, ray

    def fetch(self):
        error = self.ray.fate(self.ray, self.unit)
        if error is not None:
            raise error
        return self.evaluate(self.unit)


def with_ray(monkeypatch, fate):
    fake = FakeRay(fate)
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_ray_is_asked_again_for_the_halves_of_a_unit_that_kills(store, monkeypatch):
    def fate(ray, unit):
        return ray.exceptions.WorkerCrashedError("died") if (unit == [3, 4, 2]).all(axis=1).any() else None

    with_ray(monkeypatch, fate)
    with pytest.warns(UserWarning, match=r"1 policy has failed .*\(its worker died 3 times"):
        frame = run_campaign(SPACE, value, store, engine="ray", workers=2, unit_rows=8, progress=False)
    assert len(frame) == len(SPACE) - 1
    assert store.failures()[["conv", "fc1", "fc2"]].to_numpy().tolist() == [[3, 4, 2]]


@pytest.mark.parametrize("kind", ["RaySystemError", "LocalRayletDiedError", "NodeDiedError"])
def test_a_cluster_that_is_gone_is_told_with_what_to_do(kind, store, monkeypatch):
    calls = []

    def fate(ray, unit):
        calls.append(len(unit))
        return getattr(ray.exceptions, kind)("the raylet died") if len(calls) > 3 else None

    fake = with_ray(monkeypatch, fate)
    words = (
        r"Ray cluster, or its workers, are gone \(the raylet died\); what was evaluated is stored, and the same call"
    )
    with pytest.raises(RuntimeError, match=words):
        run_campaign(SPACE, value, store, engine="ray", workers=1, unit_rows=2, progress=False)
    assert len(store) == 6
    assert fake.cancelled <= 1  # of what was out
    with_ray(monkeypatch, lambda ray, unit: None)
    frame = run_campaign(SPACE, value, store, engine="ray", workers=1, unit_rows=2, retry_failed=True, progress=False)
    complete(frame)


@pytest.mark.parametrize(
    ("resources", "room"),
    [({"num_cpus": 1}, 4), ({"num_cpus": 1, "num_gpus": 0.5}, 2), ({"num_cpus": 0, "resources": {"chip": 1}}, 3)],
)
def test_ray_holds_as_many_tasks_as_their_scarcest_resource_allows(resources, room):
    assert engines._tasks_at_once({"CPU": 4.0, "GPU": 1.0, "chip": 3.0}, resources) == room
    with pytest.raises(ValueError, match=r"no room for one task \(has "):
        engines._tasks_at_once({}, resources)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_failing_policy_is_recorded_and_its_neighbours_are_measured(engine, store, cluster):
    with pytest.warns(UserWarning, match=r"1 policy has failed .*'fc2': 4\} \(ArithmeticError: the model is broken\)"):
        frame = run_campaign(SPACE, failing, store, engine=engine, workers=1, unit_rows=4, progress=False)
    assert len(frame) == len(SPACE) - 1
    assert store.failures().to_dict("list") == {
        **{"conv": [4], "fc1": [4], "fc2": [4]},
        "reason": ["ArithmeticError: the model is broken"],
    }


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "campaign.py"
    script.write_text(
        "import sys\nfrom pareto import DesignSpace, Store, run_campaign\nfrom tests.pareto.evaluators import Endless\n"
        "if __name__ == '__main__':\n"
        "    space = DesignSpace({'a': (2, 3), 'b': (2, 3)})\n"
        "    with Store(sys.argv[1] + '/run.sqlite', layers=space.names, fingerprint={}) as store:\n"
        "        run_campaign(space, Endless(sys.argv[1]), store, workers=2, unit_rows=1, progress=False)\n"
    )
    root = Path(__file__).parents[2]
    started = subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": str(root)})
    assert soon(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
    workers = [int(path.name.removeprefix("begun-")) for path in tmp_path.glob("begun-*")]
    started.kill()
    started.wait()
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def soon(holds):
    """Whether it does within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.mark.slow
def test_what_cannot_be_sent_is_named(store):
    with pytest.raises(TypeError, match="evaluate cannot be sent to other processes"):
        run_campaign(SPACE, lambda rows: value(rows), store, progress=False)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_campaign(SPACE, value, store, workers=0, progress=False)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_missing_ray_says_how_to_get_it(store):
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'waveq\[ray\]'"):
        run_campaign(SPACE, value, store, engine="ray", progress=False)


CHILD = """
import signal
import sys
from pareto import Store, run_campaign
from tests.pareto.evaluators import Endless
from tests.pareto.test_engines import SPACE
if __name__ == "__main__":
    # a shell that starts the tests in the background has them ignore interrupts, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Store(sys.argv[1] + "/run.sqlite", layers=SPACE.names, fingerprint={"seed": 0}) as store:
        run_campaign(SPACE, Endless(sys.argv[1]), store, workers=2, unit_rows=1, progress=False)
"""


@pytest.mark.slow
def test_ctrl_c_ends_workers_in_the_middle_of_their_units(tmp_path):
    script = tmp_path / "campaign.py"
    script.write_text(CHILD)
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("begun-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    # Workers hold the same standard error, so that its end, before the timeout, means that they are gone too.
    _, complaint = child.communicate(timeout=60)
    assert child.returncode != 0
    assert complaint.count(b"Traceback") == 1  # the parent's own, none of the workers
    assert b"KeyboardInterrupt" in complaint

from __future__ import annotations

import json

import pytest

from benchmarks.lab import pool
from benchmarks.lab.job import Job, Where
from benchmarks.lab.pool import run_jobs, run_within
from benchmarks.lab.training import run_job


class Steps:
    """Counts the steps it has seen."""

    name = "steps"

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, step, model, handle) -> None:
        self.steps.append(step)

    def seen(self) -> list[int]:
        return self.steps


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """The seeds of the jobs that are really done."""
    done = []

    def run(job, where, observe=None):
        if job.seed == 13:
            raise RuntimeError("no luck")
        done.append(job.seed)
        if observe is not None:
            observe(job.seed, None, None)
        return {"test": float(job.seed)}

    monkeypatch.setattr(pool, "run_job", run)
    monkeypatch.setattr(pool, "float_network", lambda setting, seed, where: None)
    return done


def jobs(tiny, *seeds: int) -> list[Job]:
    return [Job(setting=tiny, seed=seed, attach={"bits": 3}) for seed in seeds]


def test_results_come_in_the_order_of_the_jobs_and_each_job_is_done_once(tiny, tmp_path, counted):
    where = Where(folder=tmp_path)
    results = run_jobs(jobs(tiny, 2, 0, 1, 2), where, processes=0)
    assert [result["test"] for result in results] == [2.0, 0.0, 1.0, 2.0]
    assert sorted(counted) == [0, 1, 2]


def test_a_finished_job_is_read_and_not_done_again(tiny, tmp_path, counted):
    where = Where(folder=tmp_path)
    run_jobs(jobs(tiny, 0), where, processes=0)
    results = run_jobs(jobs(tiny, 0, 1), where, processes=0)
    assert counted == [0, 1]
    assert len(results) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["job"]["attach"] == {"bits": 3}


def test_a_job_that_fails_stops_with_its_error_and_keeps_what_is_finished(tiny, tmp_path, counted):
    where = Where(folder=tmp_path)
    with pytest.raises(RuntimeError, match="no luck"):
        run_jobs(jobs(tiny, 0, 13), where, processes=0)
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert run_jobs(jobs(tiny, 0), where, processes=0) == [{"test": 0.0}]
    assert counted == [0]


def test_each_job_is_watched_by_a_copy_and_kept_apart_from_the_unwatched_one(tiny, tmp_path, counted):
    where, watch = Where(folder=tmp_path), Steps()
    watched = run_jobs(jobs(tiny, 3, 4), where, processes=0, watch=watch)
    assert [result["seen"] for result in watched] == [[3], [4]]
    assert watch.steps == []
    assert "seen" not in run_jobs(jobs(tiny, 3), where, processes=0)[0]
    run_jobs(jobs(tiny, 3, 4), where, processes=0, watch=watch)
    assert counted == [3, 4, 3]


def test_what_a_training_starts_from_is_done_before_it_and_once(tiny, tmp_path, monkeypatch):
    done: list[str] = []

    def do(task, where, watch):
        done.append(f"{task.what} {task.job.attach.get('bits', 32)}")
        if task.what == "train":
            (tmp_path / f"{task.job.key()}.json").write_text(json.dumps({"result": {}}))

    monkeypatch.setattr(pool, "_do", do)
    wanted = [Job(setting=tiny, seed=0, attach={"bits": bits}) for bits in (2, 3)]
    assert len(run_within(wanted, Where(folder=tmp_path), processes=0)) == 2
    assert done == ["float 2", "train 2", "train 3"]


def test_with_a_limit_of_time_failures_are_told_and_the_others_go_on(tiny, tmp_path, counted, capsys):
    results = run_within(jobs(tiny, 13, 0), Where(folder=tmp_path), processes=0, minutes=1)
    assert [result["test"] for result in results.values()] == [0.0]
    assert "no luck" in capsys.readouterr().err


@pytest.mark.slow
def test_another_process_gets_the_same_result(tiny, where, tmp_path):
    job = Job(setting=tiny, seed=0, attach={"bits": 3}, epochs=1)
    (apart,) = run_jobs([job], Where(folder=tmp_path), processes=1, watch=Steps())
    here = run_job(job, where)
    assert apart["seen"] == list(range(17))
    assert apart["bits"] == here["bits"]
    assert apart["test"] == pytest.approx(here["test"], abs=2.0)  # threads may sum in another order

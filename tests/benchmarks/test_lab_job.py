"""What a job is called."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.lab.job import Job


def test_the_key_is_the_same_for_the_same_job_in_another_order_of_arguments(tiny):
    first = Job(setting=tiny, seed=1, attach={"bits": 3, "scale": "max"})
    second = Job(setting=replace(tiny), seed=1, attach={"scale": "max", "bits": 3})
    assert first.key() == second.key()


def test_any_other_job_has_another_key(tiny):
    base = Job(setting=tiny, seed=0, attach={"bits": 3})
    others = [
        replace(base, seed=1),
        replace(base, attach={"bits": 4}),
        replace(base, attach={"bits": 3, "wave": {"rise": 0.5, "strength": 1.0}}),
        replace(base, allocation={"method": "uniform", "objective": "mean_bits", "limit": 3.0}),
        replace(base, scratch=True),
        replace(base, lr=0.1),
        replace(base, epochs=1),
        replace(base, setting=replace(tiny, lr=0.3)),
    ]
    assert len({job.key() for job in [base, *others]}) == 1 + len(others)

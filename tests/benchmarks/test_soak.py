from __future__ import annotations

import sys

import pytest

from benchmarks.soak import Row, grows, main


def row(memory: float, files: int) -> Row:
    return Row(done=1, median_ms=1.0, memory_mib=memory, files=files, threads=1, objects=1)


def test_what_grows_is_named_and_what_is_made_room_for_at_first_is_not():
    assert grows([row(10, 3), row(100, 8), row(101, 9), row(104, 8)]) == []
    assert grows([row(10, 3), row(100, 8), row(106, 11)]) == ["memory", "open files"]
    assert grows([row(10, 3), row(100, 8), row(101, 10)]) == []
    assert grows([row(10, 3), row(100, 8)]) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_soak(capsys):
    assert main(["--calls", "0", "--steps", "20", "--model", "digitsnet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:] == [
        str(2 * number) for number in range(1, 11)
    ]
    assert lines[-1].startswith("looking at a loss")

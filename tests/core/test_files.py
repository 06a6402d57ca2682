"""Files that several processes want at once."""

from __future__ import annotations

import subprocess
import sys

_COUNT = """
import sys
from pathlib import Path
from fewshot.core.files import locked
count, lock = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(300):
    with locked(lock, wait=True):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_one_process_at_a_time_holds_a_lock_and_the_last_leaves_nothing(tmp_path):
    count, lock = tmp_path / "count", tmp_path / "lock"
    count.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", _COUNT, count, lock]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert count.read_text() == "1200" and not lock.exists()

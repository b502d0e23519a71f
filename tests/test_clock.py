from __future__ import annotations

import sys
from pathlib import Path

import pytest

from outbox.clock import since_boot


def test_it_does_not_go_back() -> None:
    assert since_boot() <= since_boot()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such clock")
def test_it_counts_the_time_in_which_the_machine_slept() -> None:
    uptime = Path("/proc/uptime").read_text().split()[0]  # which does
    assert abs(since_boot() - float(uptime)) < 1

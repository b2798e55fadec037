"""``outrider demo`` as a newcomer runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rings import mostly_long
from tests.support.waiting import eventually


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that name ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words and int(entry.name) != os.getpid():
                found.append(words[:200].decode(errors="replace"))
    return found


@pytest.mark.parametrize(
    "chosen",
    mostly_long(
        (
            "--balancer=traefik",
            "--balancer=haproxy",
            "--balancer=nginx",
            "--balancer=caddy",
            "--balancer=envoy",
            "--runtime=docker",
        ),
        short=lambda one: one in ("--balancer=traefik", "--balancer=haproxy"),
    ),
)
def test_the_demo_ends_as_promised_and_leaves_nothing(tmp_path: Path, chosen: str) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "outrider", "demo", chosen],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )

    assert 0 == demo.returncode, demo.stdout[-3000:] + demo.stderr
    assert "all as promised" in demo.stdout
    assert "" == demo.stderr
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_in(tmp_path)


def test_ctrl_c_ends_the_demo_with_everything_that_it_started(tmp_path: Path) -> None:
    """
    1. the demo has reached its first rollout: everything is running
    2. Ctrl-C
    3. it leaves with 1; no process and no file of it is left
    """
    demo = subprocess.Popen(
        [sys.executable, "-m", "outrider", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "2.0.0, a good release" in line:
            break
    assert len(processes_in(tmp_path)) >= 8, "etcd, Traefik, the service, three sidekicks, three instances"

    demo.send_signal(signal.SIGINT)
    _, complaint = demo.communicate(timeout=60)

    assert 1 == demo.returncode
    assert "interrupted" in complaint
    eventually(lambda: not processes_in(tmp_path))
    assert [] == list(tmp_path.iterdir())

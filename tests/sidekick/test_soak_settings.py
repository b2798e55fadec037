"""How long a new version is watched: as long as the operator says, and never too short for the watch to say no."""

from pathlib import Path

import pytest

from outrider.config.load import load_settings
from outrider.config.sections import Settings
from outrider.sidekick.assemble import delays

BASE = """
[instance]
app = "example"
group = "g"
state_dir = "/var/lib/outrider/a"
balancer = "none"
[process]
command = ["x"]
"""


def settings(tmp_path: Path, more: str) -> Settings:
    config = tmp_path / "outrider.toml"
    config.write_text(BASE + more)
    return load_settings((config,)).settings


@pytest.mark.parametrize(
    ("more", "soak_s"),
    [
        ("", 20.0),
        ("[soak]\nduration_s = 60", 60.0),
        ("[soak]\nduration_s = 0", 0.0),
        # three answers that never come, 5 s each, and the pause before the first
        ("[soak]\nduration_s = 1", 16.0),
        ("[soak]\nduration_s = 1\n[probe]\nfailures = 2\ntimeout_s = 0.5\ninterval_s = 2", 6.0),
        ("[soak]\nduration_s = 1\n[probe]\nfailures = 10\ntimeout_s = 10", 101.0),
    ],
)
def test_a_version_that_does_not_answer_can_not_outlast_the_soak(tmp_path: Path, more: str, soak_s: float) -> None:
    chosen = settings(tmp_path, more)

    assert soak_s == delays(chosen)["soak"]
    slowest = max(chosen.probe.timeout_s, chosen.probe.interval_s)
    assert soak_s == 0 or chosen.probe.failures * slowest < soak_s

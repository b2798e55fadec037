"""Partitions are run when they are asked for: beside the other tests on two cores their containers starve."""

import os

collect_ignore_glob = [] if os.environ.get("OUTRIDER_TEST_PARTITIONS") else ["test_partitions.py", "test_stage.py"]

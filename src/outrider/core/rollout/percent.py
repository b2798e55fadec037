"""The percentage: a fixed number for each instance and version, so that the answer is stable and needs no counter.

A person can compute it: ``printf '%s %s' web-1 2.0.0 | sha256sum`` begins with eight hex digits; as a number, times
100, divided by 2**32, they are the number, 0 up to 100. Another version deals the numbers anew, so that the same
machines aren't always the first.
"""

import hashlib


def percentage_of(instance: str, version: str) -> float:
    """Where an instance stands for a version, at least 0 and below 100. It is let through below the percentage."""
    digest = hashlib.sha256(f"{instance} {version}".encode()).digest()
    return int.from_bytes(digest[:4], "big") * 100 / 2**32

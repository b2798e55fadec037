"""The journal and its records: below ``story`` and ``sidekick``."""

"""Runs a version as a process that is unpacked from an archive."""

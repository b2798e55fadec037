"""Payloads on disk: fetched, verified, kept, unpacked, removed."""

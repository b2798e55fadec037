"""Check-ins, grants, wake-ups, and why an instance waits."""

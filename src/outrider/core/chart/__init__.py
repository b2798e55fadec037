"""The statechart: read, checked, run and drawn. Knows nothing of sidekicks."""

"""One worker per noun: each performs the effects of its noun, in order."""

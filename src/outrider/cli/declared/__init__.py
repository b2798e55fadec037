"""One file that says what a service should know: apps, channels, groups with policies, packages, webhooks.

``tree`` reads TOML or YAML with the line of every value; ``reading`` checks it and makes a ``state``; ``live`` reads
the same of the update service; ``plan`` compares the two, and its steps change the service; ``writing`` is the way
back.
"""

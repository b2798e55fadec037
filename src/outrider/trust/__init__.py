"""Signed releases: what is signed, how it is read, and whether it lets a machine run a payload.

``statement`` is pure: it reads and compares what was signed. ``keys`` and ``envelope`` need the extra ``trust``
(``cryptography`` and ``securesystemslib``); they import it inside their functions, so that a sidekick without keys
needs neither.
"""

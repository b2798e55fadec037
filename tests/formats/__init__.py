"""What is stored must be readable by the version before, and what that one stored by this one: see ``record``."""

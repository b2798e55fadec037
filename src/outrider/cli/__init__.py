"""The command line: noun then verb. A command parses, calls one function, prints.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error of ours or of the other side in one
line, 2 usage, 3 unknown command (as updatectl has it).
"""

from outrider.cli.main import main

__all__ = ["main"]

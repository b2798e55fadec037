"""The model checker: runs the statechart itself, exhaustively, against the promises.

``steps`` runs the chart and remembers every step; ``world`` is one sidekick with what it touches, ``happenings`` what
can happen to it and ``performing`` what its effects do; ``explore`` walks all of it and checks what concerns one
instance alone; ``fleet`` lets several share the lock; ``story`` tells a counterexample; ``check`` puts it together.
What is left out, and why that is no loss: ``docs/develop/model-checking.md``.
"""

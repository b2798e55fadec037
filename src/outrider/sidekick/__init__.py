"""The sidekick: one loop that owns the machine, and one worker for each noun that its effects are about.

    inbox -> step -> journal -> perform

``loop.py`` decides nothing and knows no driver; the nouns (``*_work.py``) do what effects say and answer with events.
"""

"""What a journal tells: an update as a story for a person, and whether every step of it is one of the chart's."""

from outrider.story.conformance import Replay, replay
from outrider.story.lines import Line, StoryError, lines_of, read_lines
from outrider.story.telling import Moment, Story, render, tell

__all__ = ["Line", "Moment", "Replay", "Story", "StoryError", "lines_of", "read_lines", "render", "replay", "tell"]

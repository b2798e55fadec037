"""What a sidekick's chart means: events, effects, memory, guards, builders, words."""

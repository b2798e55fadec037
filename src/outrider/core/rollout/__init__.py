"""What a group's policy allows, the progress of a rollout, which instance may take a turn. By values alone."""

"""What a group's policy allows, how a rollout stands, who may take a turn. By values alone."""

"""What happened: activity events, recorded once by any number of processes, and webhooks."""

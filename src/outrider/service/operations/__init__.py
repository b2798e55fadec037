"""What keeps the service itself running: metrics and backups."""

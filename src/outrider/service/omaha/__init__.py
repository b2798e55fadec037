"""The Omaha v3 endpoint."""

"""Payload files that the update service stores and serves."""

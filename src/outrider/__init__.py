"""outrider: zero-downtime rolling updates for services on a fleet of machines, without Kubernetes."""

__version__ = "0.1.0"

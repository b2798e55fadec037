"""Turns, the permissions to swap: slots and queues in etcd, decided by ``core/rollout/slots.py``."""

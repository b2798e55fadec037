"""Turns: who may swap. Slots and queues in etcd, decided by ``core/rollout/slots.py``."""

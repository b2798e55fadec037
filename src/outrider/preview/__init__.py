"""A rollout before it happens: the real chart, policy, waves and budgets in simulated time, many times over.

What takes time takes as long as the fleet has measured, or as long as the defaults say; everything that was assumed is
named in the result. Nothing here touches a machine, etcd or the update service.
"""

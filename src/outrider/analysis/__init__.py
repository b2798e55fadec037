"""Analysis of a release under traffic: the questions to the world, and the answers as findings.

- ``checks``: the operator's checks, each asked once: a PromQL query, a command, an endpoint.
- ``sources``: where requests and errors of each server are counted: HAProxy, a page of metrics, the app itself.
- ``comparison``: new versus old, round by round, with the counts of a whole wave pooled in etcd.
- ``analyst``: all of them, round by round, until they have decided or the time is up.

A sidekick asks them while it soaks. They know nothing of sidekicks, so that whoever else has a release to judge can ask
the same.
"""

"""Analysis of a release under traffic: what its checks have found, and the comparison of new with old by counts.

- ``results``: the three results, and what several checks come to.
- ``sequential``: the test that compares error counts of the candidate and of the old version.
- ``pool``: the tests of one wave, one after the other, as the instances of a group share them.
- ``counts``: who serves which version, and what was counted between two looks.
- ``answers``: what Prometheus, HAProxy, a page of metrics or an endpoint answers, read strictly.
"""

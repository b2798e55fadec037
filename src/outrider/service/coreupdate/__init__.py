"""CoreUpdate's REST API, for the real updateservicectl: off unless ``serve --coreupdate-api`` says otherwise.

A translation in front of our own API (``service/api``): ``hawk`` checks signatures, ``auth`` admits requests, ``verbs``
and ``figures`` translate, ``shapes`` has the bodies, ``uploads`` what lies outside ``/_ah/api/update/v1/``.

Source: updateservicectl's ``client/update/v1/update-api.json``, and its calls as they were captured
(``tests/data/captures/coreupdate-api``).
"""

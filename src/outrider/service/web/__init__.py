"""The web page of the update service: what `outrider status` and the REST API say, live, with forms for what they do.

- ``paths``: which paths are the page's. ``application``: dispatch, headers, errors.
- ``doors``: who is there: session, CSRF token, roles. They are those of the API.
- ``reading``: the copy of etcd that an answer is made from. ``live``: streams of the fragments that have changed.
- ``pages/`` and ``actions/``: one module for each page, and for each kind of action; ``site`` lists them.
- ``templates/`` and ``static/``: Jinja2, one style sheet, a few modules of JavaScript; nothing is built.

`docs/develop/web.md` says how to add a page and an action.
"""

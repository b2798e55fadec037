"""OpenID Connect: people and programs are known by the tokens of an identity provider.

``settings`` is the service's file; ``provider`` reads what the provider says of itself, its keys above all; ``tokens``
checks a token and says who has it; ``flows`` are the two ways to get one: by a browser, and on another device.
The libraries (Authlib, joserfc) are the extra ``oidc`` and are imported where they are used.
"""

"""The REST API: endpoints, bodies, authentication, entity tags, pages."""

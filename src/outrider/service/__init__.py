"""The update service: Omaha and REST over etcd. `nouns` and `overview` are free of the web framework."""

"""Documents in etcd and their keys: the domain, by noun. Nothing here talks to etcd."""

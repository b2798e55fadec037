"""Resource stores: what the update service keeps in etcd, each change one guarded transaction."""

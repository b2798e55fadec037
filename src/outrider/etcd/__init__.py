"""etcd: the seam that the rest of outrider sees, and the client, watches and leases behind it."""

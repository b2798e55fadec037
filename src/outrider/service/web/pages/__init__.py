"""One module for each page: a function that reads a copy of etcd, and the facts that its template shows."""

"""One module for each kind of action: what it is going to do, and the call of the store that does it."""

"""segkit beside its peers: what takes how long, how much of it is segkit's own, and which goals are met; one subject a file."""

"""Many sagas at once: a bounded pool of drivers, waiting callers, leases, recovery, and what an operator may do."""

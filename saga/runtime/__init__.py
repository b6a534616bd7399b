"""This folder runs many sagas at once: it starts, drives and recovers them, and passes an operator's commands on.

saga_starter.py starts sagas and waits for their ends, whatever coordinates them: coordinator.py says what a coordinator
can do, and built_in_coordinator.py is the one whose sagas this process drives. driver_pool.py has the threads that
drive them, bulkhead.py bounds the calls to each service, lease_keeper.py renews the leases, and waiting_callers.py has
the callers that wait, whom end_signals.py wakes. recovery.py claims what is due, with due_sagas.py and lease_watch.py.
operator.py has the commands of an operator, and permitted_commands.py says when they are permitted. tail.py follows the
log as it is written, with log_lines.py. pruning.py forgets old sagas, and end_unreadable.py ends one that cannot be
read.

How long a stalled saga rests is said in saga/retry.py, and the SQL of a claim in saga/storage/log_sql.py.
"""

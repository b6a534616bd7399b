"""Many sagas at once, and those who look after them.

engine.py starts sagas and waits for their ends, whatever coordinates them: coordinator.py says what a coordinator can
do, and built_in_coordinator.py is the one whose sagas this process drives. driver_pool.py has the threads that drive
them, bulkhead.py bounds the calls to each service, lease_keeper.py renews the leases, and waiting_callers.py keeps
those who wait. recovery.py claims what is due, with due_sagas.py and lease_watch.py. operator.py has the commands of an
operator, and permitted_commands.py says when they are permitted. tail.py follows the log as it is written.

How long a stalled saga rests is said in saga/retry.py, and the SQL of a claim in saga/storage/log_sql.py.
"""

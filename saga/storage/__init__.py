"""This folder has the databases: engines, column types, tables and statements; and two things that only save time.

Group commit (`group_commit.py`) makes 0.65 transactions out of a saga's four with 16 clients; batches
(`statement_batch.py`, and `mysql_connection.py` for MySQL) need three round trips for a participant's call instead of
four, and compile a statement once, which halves SQLAlchemy's time for it (docs/performance.md).

The plain version (`connect(url, plain=True)`, `SAGA_PLAIN=1`) is SQLAlchemy alone: it executes each statement by
itself, in the same transaction, and gives each write a transaction of its own. tests/contract runs both.
"""

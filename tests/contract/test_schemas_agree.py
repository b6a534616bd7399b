"""The tables of db/init.sql and those that the code declares are the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import Column, Engine, MetaData, Table, create_engine, inspect
from sqlalchemy.dialects import mysql

from saga import barrier
from saga.choreography.inbox import saga_inbox
from saga.choreography.outbox import saga_outbox
from saga.storage import body_sql, log_tables
from service_a.app import users
from service_b.app import addresses
from service_c.app import payments

TABLES: dict[str, list[Table]] = {
    "orchestrator": [log_tables.sagas, log_tables.saga_log, log_tables.saga_results, body_sql.saga_bodies, saga_outbox],
    "service_a": [users, barrier.saga_barrier, saga_outbox, saga_inbox],
    "service_b": [addresses, barrier.saga_barrier, saga_outbox, saga_inbox],
    "service_c": [payments, barrier.saga_barrier, saga_outbox, saga_inbox],
}


def declared(table: Table) -> dict[str, Any]:
    """What MySQL would be told to make of a table."""
    dialect = mysql.dialect()  # type: ignore[no-untyped-call]

    def kind(column: Column[Any]) -> str:
        written = str(column.type.compile(dialect)).replace(" COLLATE utf8mb4_bin", "")  # the databases' default
        return re.sub(r"(INT|INTEGER)\(\d+\)", r"\1", written)  # MariaDB's display width

    return {
        "columns": {column.name: (kind(column), column.nullable) for column in table.columns},
        "key": [column.name for column in table.primary_key.columns],
        "indexes": sorted([column.name for column in index.columns] for index in table.indexes if not index.unique),
        "unique": sorted(
            [[column.name] for column in table.columns if column.unique]
            + [[column.name for column in index.columns] for index in table.indexes if index.unique]
        ),
    }


def present(engine: Engine, name: str) -> dict[str, Any]:
    """What the database holds."""
    inspector = inspect(engine)
    indexes = inspector.get_indexes(name)
    return {
        **declared(Table(name, MetaData(), autoload_with=engine)),
        "indexes": sorted(index["column_names"] for index in indexes if not index["unique"]),
        "unique": sorted(index["column_names"] for index in indexes if index["unique"]),
    }


@pytest.mark.parametrize("process", TABLES)
def test_the_tables_of_init_sql_are_those_of_the_code(mysql_databases: dict[str, str], process: str) -> None:
    engine = create_engine(mysql_databases[process])
    try:
        assert sorted(inspect(engine).get_table_names()) == sorted(table.name for table in TABLES[process])
        for table in TABLES[process]:
            assert present(engine, table.name) == declared(table)
    finally:
        engine.dispose()

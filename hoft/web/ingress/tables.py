"""
Rows of the ingress's tables, each of which has one for an exchange: its first column, C{exchange}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hoft.interfaces import ITransaction


def write_row(table: str, values: Sequence[object]) -> Callable[[ITransaction], None]:
    """
    What C{commit} takes as C{also}: the row as it is now.

    @param values: of all columns, in their order.
    """
    statement = f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})"
    return lambda transaction: transaction.execute(statement, values)


def forget_row(table: str, exchange: bytes) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: remove the row."""
    return lambda transaction: transaction.execute(f"DELETE FROM {table} WHERE exchange = ?", (exchange,))

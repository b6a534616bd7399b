"""The search attributes of our workflows. They are optional: on a server without them everything else works."""

from __future__ import annotations

import logging
from collections.abc import Callable

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from saga.saga_row import SagaRow
from saga.views.representation import NEEDS_ATTENTION_AFTER_ROUNDS, PUBLIC_STATUS

logger = logging.getLogger("saga")

SAGA = SearchAttributeKey.for_keyword("SagaName")
STATUS = SearchAttributeKey.for_keyword("SagaStatus")
ATTENTION = SearchAttributeKey.for_bool("SagaNeedsAttention")

TYPES = {
    SAGA.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    STATUS.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    ATTENTION.name: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
}
ASK_AGAIN = 60.0  # seconds after which a server without them is asked again


def search_attributes(row: SagaRow) -> TypedSearchAttributes:
    """Return a saga's search attributes: its name, its public status, and whether it needs attention."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(SAGA, row.definition.name),
            SearchAttributePair(STATUS, PUBLIC_STATUS[row.state]),
            SearchAttributePair(ATTENTION, row.rounds >= NEEDS_ATTENTION_AFTER_ROUNDS and not row.ended),
        ]
    )


class SearchAttributeSupport:
    """Knows whether the server has our search attributes, and asks it to add them, which not every server allows."""

    def __init__(self, namespace: str, clock: Callable[[], float]):
        self._namespace = namespace
        self._clock = clock
        self._available = False
        self._asked_at = float("-inf")

    async def available(self, client: Client) -> bool:
        """Return whether a workflow may set them now.

        Attributes that were only just added do not count yet, since the server may not know them everywhere.
        """
        if self._available or self._clock() < self._asked_at + ASK_AGAIN:
            return self._available
        self._asked_at = self._clock()
        try:
            found = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=self._namespace)
            )
            missing = {name: kind for name, kind in TYPES.items() if found.custom_attributes.get(name) != kind}
            self._available = not missing
            if missing:
                await client.operator_service.add_search_attributes(
                    AddSearchAttributesRequest(namespace=self._namespace, search_attributes=missing)
                )
        except RPCError as error:
            logger.info("event=no_search_attributes: %s", error.message)
        return self._available

"""Users and groups as they are: single ones, and the search for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from scim2_models import (
    Context,
    ListResponse,
    NotFoundException,
    ResponseParameters,
    ScimFilter,
    SearchRequest,
    TooManyException,
)

from gateway.flows.scim.filters import Kind, check_terms, check_text, names_in, pushed
from gateway.flows.scim.limits import ScimLimits
from gateway.flows.scim.reading import MODELS, is_shown, over, read
from gateway.flows.scim.resources import POLICY, GroupResource, UserResource, group_resource, user_resource
from gateway.flows.scim.values import Reply, ScimCaller
from gateway.stores.directory import Condition, Directory

SCAN_PAGE: Final = 100  # resources read at once where an index cannot answer
BREATH: Final = 20  # resources looked at before others get their turn
GROUP_READS: Final = 8  # at once, of users' groups
_NONE: Final = frozenset[str]()
_BOTH: Final[Any] = UserResource | GroupResource


class ScimReader:
    """Reads the directory as SCIM has it. Raises SCIMException for what a client did wrong, and GatewayError."""

    def __init__(self, directory: Directory, *, base_url: str, limits: ScimLimits) -> None:
        self._directory = directory
        self._base_url = base_url
        self._limits = limits

    async def held(self, kind: Kind, resource_id: str, caller: ScimCaller) -> Any:
        """Give what the directory has. Raises NotFoundException."""
        get = self._directory.get_user if kind == "User" else self._directory.get_group
        held = await get(caller.tenant, resource_id)
        if held is None:
            raise not_found(resource_id)
        return held

    async def resource(
        self, kind: Kind, held: Any, shown: ResponseParameters[Any], more: frozenset[str] = _NONE
    ) -> Any:
        """Give a resource with what is asked for of its groups or members. `more`: what a filter looks at besides."""
        if kind == "User":
            is_wanted = "groups" in more or is_shown("groups", shown)
            groups = await self._directory.groups_of(held.tenant, held.id) if is_wanted else None
            return user_resource(held, self._base_url, groups)
        is_wanted = "members" in more or is_shown("members", shown)
        members = await self._directory.members_of(held.tenant, held.id) if is_wanted else None
        return group_resource(held, self._base_url, members)

    async def search(self, kind: Kind, parameters: Mapping[str, Any], caller: ScimCaller) -> Reply:
        """Look for resources of one kind (RFC 7644 §3.4.2)."""
        request, found = self._request(kind, parameters)
        resources, total = await self._found(kind, request, found, caller)
        return self._page(request, [(kind, each) for each in resources], total)

    async def search_all(self, parameters: Mapping[str, Any], caller: ScimCaller) -> Reply:
        """Look for users and groups at once (RFC 7644 §3.4.2.1): users come first, where no order is asked for."""
        request = self._request_of(over(SearchRequest, _BOTH), parameters)
        everything: list[tuple[Kind, Any]] = []
        kinds: tuple[Kind, ...] = ("User", "Group")
        for kind in kinds:
            narrow, found = self._request(kind, parameters, is_strict=False)
            shown = narrow.model_copy(update={"start_index": 1, "count": None, "sort_by": None})
            resources, total = await self._found(kind, shown, found, caller, limit=self._limits.scan)
            if total > len(resources):
                raise TooManyException(detail=f"more than {self._limits.scan} resources would be looked through")
            everything += [(kind, each) for each in resources]
        if request.sort_by is not None:
            order = {id(each): kind for kind, each in everything}
            everything = [(order[id(each)], each) for each in request.sort([each for _, each in everything])]
        start = request.start_index_0 or 0
        count = self._count(request)
        return self._page(request, everything[start : start + count], len(everything))

    # -- parts

    async def _found(
        self,
        kind: Kind,
        request: SearchRequest[Any],
        found: ScimFilter[Any] | None,
        caller: ScimCaller,
        limit: int | None = None,
    ) -> tuple[list[Any], int]:
        """Give a page of what is looked for, and how many there are."""
        asked = pushed(found, kind)
        count = self._count(request) if limit is None else limit
        start = request.start_index_0 or 0
        if asked.whole and request.sort_by is None and limit is None:
            held, total = await self._held_page(kind, caller, asked.conditions, start, count)
            return await self._resources(kind, held, request, _NONE), total
        more = frozenset[str]() if found is None else names_in(found.ast)
        if request.sort_by is not None:
            more |= {str(request.sort_by).lower().partition(".")[0].rpartition(":")[2]}
        candidates = await self._scanned(kind, caller, asked.conditions)
        resources = []
        for number, each in enumerate(await self._resources(kind, candidates, request, more)):
            if number % BREATH == 0:
                await asyncio.sleep(0)  # a long look must not hold up everybody else
            with POLICY:
                if found is None or found.match(each):
                    resources.append(each)
        with POLICY:
            ordered = request.sort(resources)
        return ordered[start : start + count], len(ordered)

    async def _scanned(self, kind: Kind, caller: ScimCaller, conditions: Sequence[Condition]) -> list[Any]:
        """Give all for which the conditions hold. Raises TooManyException where these are too many."""
        held: list[Any] = []
        while True:
            page, total = await self._held_page(kind, caller, conditions, len(held), SCAN_PAGE)
            if total > self._limits.scan:
                raise TooManyException(detail=f"more than {self._limits.scan} resources would be looked through")
            held += page
            if len(held) >= total or not page:
                return held

    async def _held_page(
        self, kind: Kind, caller: ScimCaller, conditions: Sequence[Condition], start: int, count: int
    ) -> tuple[Sequence[Any], int]:
        if kind == "User":
            users = await self._directory.find_users(caller.tenant, conditions, start, count)
            return users.users, users.total
        groups = await self._directory.find_groups(caller.tenant, conditions, start, count)
        return groups.groups, groups.total

    async def _resources(
        self, kind: Kind, held: Iterable[Any], shown: ResponseParameters[Any], more: frozenset[str]
    ) -> list[Any]:
        permits = asyncio.Semaphore(GROUP_READS)

        async def one(each: Any) -> Any:
            async with permits:
                return await self.resource(kind, each, shown, more)

        made: list[Any] = []
        batch = list(held)
        for begin in range(0, len(batch), BREATH):
            made += await asyncio.gather(*(one(each) for each in batch[begin : begin + BREATH]))
            await asyncio.sleep(0)
        return made

    def _request(
        self, kind: Kind, parameters: Mapping[str, Any], *, is_strict: bool = True
    ) -> tuple[SearchRequest[Any], ScimFilter[Any] | None]:
        """Read what is looked for among one kind. Not `is_strict`: it may name what only the other kind has."""
        model = MODELS[kind]
        if is_strict:
            request = self._request_of(over(SearchRequest, model), parameters)
            return request, request.filter
        request = self._request_of(over(SearchRequest, _BOTH), parameters)
        return request, None if request.filter is None else over(ScimFilter, model)(str(request.filter))

    def _request_of(self, model: Any, parameters: Mapping[str, Any]) -> Any:
        text = parameters.get("filter")
        if isinstance(text, str):
            check_text(text, self._limits)
        with POLICY:
            request = read(model, dict(parameters), Context.SEARCH_REQUEST)
        if request.filter is not None:
            check_terms(request.filter.ast, self._limits)
        return request

    def _count(self, request: SearchRequest[Any]) -> int:
        return self._limits.page if request.count is None else min(request.count, self._limits.page)

    def _page(self, request: SearchRequest[Any], resources: Sequence[tuple[Kind, Any]], total: int) -> Reply:
        body: dict[str, Any] = {
            "schemas": [str(ListResponse.__schema__)],
            "totalResults": total,
            "startIndex": (request.start_index_0 or 0) + 1,
            "itemsPerPage": len(resources),
            "Resources": [
                each.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=request)
                for _, each in resources
            ],
        }
        return Reply(200, body)


def not_found(resource_id: str) -> NotFoundException:
    return NotFoundException(detail=f"there is no `{resource_id[:200]}` here")

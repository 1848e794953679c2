"""No state, nonce or code is taken twice, by anybody but whom it was for, in whatever order things come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.flows.federated import SSORefused, SSOStart
from tests.unit.flows.federated.world import Pairs, SSOWorld, sso_world

BROWSERS = ("browser-one", "browser-two")


class TwoProviders:
    """A gateway with two providers, each of which would also answer for the other."""

    def __init__(self, worlds: list[SSOWorld]) -> None:
        self.worlds = worlds
        first, second = worlds
        second.provider.id = "other"
        first.federation.providers = {"corp": first.provider, "other": second.provider}
        self.federation = first.federation

    async def answer(self, provider: str, browser: str) -> Pairs:
        idp = self.worlds[0 if provider == "corp" else 1].idp
        address = await self.federation.begin(provider, SSOStart(browser=browser))
        return parse_qsl(urlsplit(idp.authorize(address)).query)


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, TwoProviders]]:
    async def opened(stack: AsyncExitStack) -> TwoProviders:
        worlds = []
        for name in ("one", "two"):
            folder: Path = tmp_path_factory.mktemp(name)
            worlds.append(await stack.enter_async_context(sso_world(folder, timeout_s=5.0)))
        first, second = worlds
        second.idp.user["sub"] = "another-subject"
        await first.link()
        second.provider._resilience = first.resilience
        return TwoProviders(worlds)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner, runner.run(opened(stack))
        runner.run(stack.aclose())


TRIES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(BROWSERS), st.sampled_from(["corp", "other"]), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(
    starts=st.lists(st.tuples(st.sampled_from(["corp"]), st.sampled_from(BROWSERS)), min_size=3, max_size=3),
    tries=TRIES,
)
def test_each_answer_is_good_once_for_its_browser_and_provider(
    laid: tuple[asyncio.Runner, TwoProviders],
    starts: list[tuple[str, str]],
    tries: list[tuple[int, str, str, bool]],
) -> None:
    """`tries`: which answer, by which browser, at whose address, and with the code of the next answer in its place."""
    runner, both = laid

    async def run() -> None:
        answers = [await both.answer(provider, browser) for provider, browser in starts]
        used: set[int] = set()  # whose state was brought
        doubtful: set[int] = set()  # whose code was brought beside another state, and may be spent
        for number, browser, provider, swaps in tries:
            answer = dict(answers[number])
            if swaps:
                answer["code"] = dict(answers[(number + 1) % 3])["code"]
            may_pass = number not in used and starts[number] == (provider, browser) and not swaps
            must_pass = may_pass and number not in doubtful
            used.add(number)
            if swaps:
                doubtful.add((number + 1) % 3)
            try:
                login = await both.federation.complete(provider, list(answer.items()), browser)
            except SSORefused:
                assert not must_pass
            else:
                assert may_pass
                assert login.provider == provider

    runner.run(run())


def test_an_answer_of_one_provider_is_none_at_the_address_of_another(
    laid: tuple[asyncio.Runner, TwoProviders],
) -> None:
    runner, both = laid

    async def run() -> None:
        answer = await both.answer("corp", BROWSERS[0])
        without_iss = [pair for pair in answer if pair[0] != "iss"]
        for sent in (answer, without_iss):
            with pytest.raises(SSORefused) as refused:
                await both.federation.complete("other", sent, BROWSERS[0])
            assert refused.value.reason in {"state_of_another_provider", "state_spent"}
        assert both.worlds[1].idp.used == []  # the code was not handed to the other one

    runner.run(run())

"""What a login is worth, and what it is enough for."""

from __future__ import annotations

import pytest

from gateway.flows.strength import acr_of, meets, with_class


@pytest.mark.parametrize(
    ("methods", "acr"),
    [
        ((), "1fa"),
        (("pwd",), "1fa"),
        (("otp",), "1fa"),
        (("pwd", "otp"), "2fa"),
        (("fed", "mfa"), "2fa"),
        (("fed",), "1fa"),
        (("hwk",), "1fa"),  # without having looked at who holds it
        (("pop", "user"), "1fa"),  # somebody was there
        (("pop", "user", "mfa"), "phr"),
        (("hwk", "user", "mfa"), "phr"),
        (("fed", "pop", "user"), "phr"),
        (("fed", "otp"), "2fa"),
        (("pwd", "hwk"), "phr"),
    ],
)
def test_methods_add_up_to_a_class(methods: tuple[str, ...], acr: str) -> None:
    assert acr_of(methods) == acr


def test_several_factors_are_named_once() -> None:
    assert with_class(("pwd", "otp", "pwd")) == ("pwd", "otp", "mfa")
    assert with_class(("pwd",)) == ("pwd",)


@pytest.mark.parametrize(
    ("acr", "wanted", "enough"),
    [
        ("1fa", (), True),
        ("", (), True),
        ("", ("1fa",), False),
        ("1fa", ("2fa",), False),
        ("2fa", ("1fa",), True),
        ("phr", ("2fa",), True),
        ("2fa", ("phr",), False),
        ("2fa", ("phr", "2fa"), True),
        ("phr", ("unheard",), False),
        ("unheard", ("unheard",), True),
    ],
)
def test_a_stronger_login_is_enough_for_what_a_weaker_one_is(acr: str, wanted: tuple[str, ...], enough: bool) -> None:
    assert meets(acr, wanted) is enough

"""One table of prices for plans, budgets and gates."""

import pytest

from reconciler.kinds.project import Prices
from reconciler.prices import Book, Price, known


@pytest.mark.parametrize(
    "model, expected",
    [
        ("gpt-4.1-mini-2025-04-14", Price(0.40, 1.60, 0.10, 5)),
        ("ft:gpt-4.1-2025-04-14:acme::x", Price(3.00, 12.00, 0.75, 25)),
        ("o4-mini-2025-04-16", Price(1.10, 4.40, 0.275, None, 100)),
        ("davinci-002", Price(2, 2, None, 6)),
        ("tiny-chat", None),
    ],
)
def test_the_packages_prices_are_openais_last(model: str, expected: Price | None) -> None:
    assert expected == Book().price(model)


def test_every_base_that_can_be_tuned_has_a_price_for_its_tunes() -> None:
    tunable = {
        name for name, price in known().items() if (price.training, price.training_hour) != (None, None)
    }

    assert {name for name in tunable if not name.startswith("ft:")} == {
        name.removeprefix("ft:") for name in tunable if name.startswith("ft:")
    }


def test_a_projects_prices_come_first() -> None:
    written = {"gpu_hour": 2.5, "models": {"gpt-4.1": {"input": 1, "output": 2, "training": 3}}}

    book = Prices.model_validate(written).book()

    assert (2.5, Price(1, 2, None, 3)) == (book.gpu_hour, book.price("gpt-4.1-mini"))


@pytest.mark.parametrize(
    "usage, usd",
    [
        ({"prompt_tokens": 1_000_000, "completion_tokens": 100_000}, 1.2),
        ({"prompt_tokens": 1_000_000, "completion_tokens": 0, "cached_tokens": 400_000}, 0.7),
        ({"prompt_tokens": 1_000_000, "prompt_tokens_details": {"cached_tokens": 400_000}}, 0.7),
        ({"prompt_tokens": 100, "cached_tokens": 4000}, 100 * 0.25 / 1e6),
        ({}, 0.0),
    ],
)
def test_input_that_was_read_before_costs_less(usage: dict[str, object], usd: float) -> None:
    assert usd == pytest.approx(Price(1.0, 2.0, 0.25).of(usage))

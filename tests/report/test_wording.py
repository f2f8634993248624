"""Names and ids as the report writes them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from htr_ray.report.wording import anchor

PARTS = st.lists(st.text("ab.- _é", min_size=1, max_size=4), min_size=1, max_size=3)


@given(PARTS, PARTS)
def test_unlike_parts_have_unlike_ids(left: list[str], right: list[str]) -> None:
    assert (anchor(*left) == anchor(*right)) == (left == right)
    assert re.fullmatch(r"[\w-]+", anchor(*left))


def test_plain_names_stay_as_they_are() -> None:
    assert anchor("curve", "wills", "semi_supervised", 1) == "curve-wills-semi_supervised-1"

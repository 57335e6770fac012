"""`docs/reliability.md` names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_promises_names_tests_that_exist_and_leaves_no_count_open():
    page = (ROOT / "docs/reliability.md").read_text()
    named = set(re.findall(r"`((?:tests/[\w/]*)?test_\w+\.py)`", page))
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "tests/reliability" / name).is_file(), name
    assert re.findall(r"@\w*@", page) == []

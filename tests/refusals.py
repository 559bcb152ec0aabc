"""What tests pin of a refusal: the exception, one line, and the keys, files and values in it. Not its wording."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from persistworld.runtime.errors import UserError


@contextlib.contextmanager
def refused(*named: object, kind: type[Exception] = UserError) -> Iterator[pytest.ExceptionInfo]:
    """The block raises `kind`, and its message is one line that names each of `named`."""
    with pytest.raises(kind) as caught:
        yield caught
    assert_names(str(caught.value), *named)


def assert_names(line: str, *named: object) -> None:
    """`line` is one line and contains each of `named`, not as a part of a longer word or number."""
    assert line.strip() and "\n" not in line.strip(), line
    for text in map(str, named):
        before, after = r"(?<!\w)" * text[0].isalnum(), r"(?!\w)" * text[-1].isalnum()
        assert re.search(before + re.escape(text) + after, line), f"{text!r} is not named in: {line}"

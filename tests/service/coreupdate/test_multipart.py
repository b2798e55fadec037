"""The file of a form, however it is cut into pieces."""

import pytest

from outrider.core.errors import ConfigError
from outrider.service.coreupdate.multipart import FilePart

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: a/b\r\n\r\n'
CONTENT = b"one\r\n--bo\r\ntwo\r\n-\r\n"
FORM = HEAD + CONTENT + b"\r\n--b--\r\n"
TYPE = "multipart/form-data; boundary=b"


def read(pieces: list[bytes], content_type: str = TYPE) -> tuple[bytes, bool]:
    part = FilePart(content_type)
    return b"".join([part.feed(piece) for piece in pieces]), part.is_whole


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
def test_a_file_is_the_same_in_pieces_of_any_size(size: int) -> None:
    form = FORM.replace(b"--bo\r\n", b"--co\r\n")  # a boundary never stands in the content

    found = read([form[start : start + size] for start in range(0, len(form), size)])

    assert (CONTENT.replace(b"--bo", b"--co"), True) == found


def test_a_form_that_ends_within_the_file_is_not_whole() -> None:
    assert not read([HEAD + b"half"])[1]


@pytest.mark.parametrize(
    "content_type", [TYPE, 'Multipart/Form-Data; charset=x; boundary="b"', "multipart/form-data;boundary=b"]
)
def test_a_boundary_may_be_quoted(content_type: str) -> None:
    assert read([HEAD, b"x", b"\r\n--b--"], content_type) == (b"x", True)


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="])
def test_what_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(ConfigError):
        FilePart(content_type)


@pytest.mark.parametrize(
    "form",
    [HEAD.replace(b'"file"', b'"other"'), b"--c" + HEAD[3:], b"x" * 9000, b"--b\r\n\r\nx"],
    ids=["another field", "another boundary", "no end", "no head"],
)
def test_a_form_that_does_not_begin_with_the_file_is_refused(form: bytes) -> None:
    with pytest.raises(ConfigError):
        FilePart(TYPE).feed(form)

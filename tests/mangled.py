"""What was whole, with a piece or three of it cut out, put in or turned into others."""

from hypothesis import strategies as st

PIECES = st.sampled_from([
    b"", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b":", b"null", b"true", b"{}", b"[]", b"-", b"--5",
    b"1e999", b"1e308", b"NaN", b"-Infinity", b"9" * 400, b"9" * 4400, b"[" * 300, "\u2028é".encode(),
])  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn, whole: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(whole)))
        end = draw(st.integers(begin, min(begin + 12, len(whole))) | st.just(len(whole)))
        whole = whole[:begin] + draw(PIECES | st.binary(max_size=4)) + whole[end:]
    return whole

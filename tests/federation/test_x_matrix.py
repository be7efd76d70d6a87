# SPDX-License-Identifier: Apache-2.0
"""The X-Matrix header as text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.federation.x_matrix import (
    MAX_HEADER,
    BadHeader,
    XMatrix,
    format_header,
    is_key_id,
    is_x_matrix,
    parse,
    signed_bytes,
)
from minihs.matrix import canonical

SIG = "Kc4" + "A" * 83
GOOD = XMatrix("o.test:1", "us", "ed25519:1", SIG)

SAME = {
    "as the spec writes it": f'X-Matrix origin="o.test:1",destination="us",key="ed25519:1",sig="{SIG}"',
    "nothing quoted": f"X-Matrix origin=o.test:1,destination=us,key=ed25519:1,sig={SIG}",
    "some quoted": f'X-Matrix origin=o.test:1,destination="us",key="ed25519:1",sig={SIG}',
    "another order": f'X-Matrix sig="{SIG}",key="ed25519:1",destination="us",origin="o.test:1"',
    "names in capitals": f'X-Matrix ORIGIN="o.test:1",Destination="us",KEY="ed25519:1",Sig="{SIG}"',
    "the scheme in small letters": f'x-matrix origin="o.test:1",destination="us",key="ed25519:1",sig="{SIG}"',
    "the scheme in capitals": f'X-MATRIX origin="o.test:1",destination="us",key="ed25519:1",sig="{SIG}"',
    "several spaces": f'X-Matrix    origin="o.test:1",destination="us",key="ed25519:1",sig="{SIG}"',
    "blanks by commas": f'X-Matrix origin="o.test:1" ,\tdestination="us"  , key="ed25519:1",  sig="{SIG}"  ',
    "blanks by equals": f'X-Matrix origin = "o.test:1",destination ="us",key= "ed25519:1",sig="{SIG}"',
    "backslashes": f'X-Matrix origin="\\o.\\test\\:1",destination="us",key="ed25519:1",sig="{SIG}"',
    "unknown names": f'X-Matrix v="2",origin="o.test:1",destination="us",key="ed25519:1",sig="{SIG}",x=""',
    "empty elements": f'X-Matrix ,origin="o.test:1",,destination="us",key="ed25519:1",sig="{SIG}",',
}


@pytest.mark.parametrize("header", SAME.values(), ids=SAME.keys())
def test_all_legal_forms_say_the_same(header: str) -> None:
    assert is_x_matrix(header)
    assert parse(header) == GOOD


def test_what_we_send_is_the_narrow_form() -> None:
    header = format_header(origin=GOOD.origin, destination="us", key_id=GOOD.key_id, signature=SIG)
    assert header == SAME["as the spec writes it"]


def test_a_padded_and_a_url_safe_signature_are_taken() -> None:
    assert parse(f"X-Matrix origin=a,key=ed25519:1,sig={'A' * 86}==").signature == "A" * 86 + "=="
    assert parse(f"X-Matrix origin=a,key=ed25519:1,sig={'-' * 86}").signature == "-" * 86


def test_old_servers_do_not_say_the_destination() -> None:
    assert parse(f"X-Matrix origin=a,key=ed25519:1,sig={SIG}").destination is None


def test_an_ipv6_origin_may_be_unquoted() -> None:
    assert parse(f"X-Matrix origin=[2a00::1]:8448,key=ed25519:1,sig={SIG}").origin == "[2a00::1]:8448"


BAD = {
    "nothing": "",
    "another scheme": 'Bearer origin="a",key="ed25519:1",sig="x"',
    "the scheme alone": "X-Matrix",
    "no parameters": "X-Matrix ",
    "no origin": f'X-Matrix key="ed25519:1",sig="{SIG}"',
    "no key": f'X-Matrix origin="a",sig="{SIG}"',
    "no signature": 'X-Matrix origin="a",key="ed25519:1"',
    "two origins": f'X-Matrix origin="a",origin="b",key="ed25519:1",sig="{SIG}"',
    "two origins in different case": f'X-Matrix origin="a",ORIGIN="a",key="ed25519:1",sig="{SIG}"',
    "an open quote": f'X-Matrix key="ed25519:1",sig="{SIG}",origin="a',
    "a dangling backslash": f'X-Matrix key="ed25519:1",sig="{SIG}",origin="a\\"',
    "text after a quoted value": f'X-Matrix origin="a"b,key="ed25519:1",sig="{SIG}"',
    "a quote inside a token": f'X-Matrix origin=a"b,key="ed25519:1",sig="{SIG}"',
    "no equals sign": f'X-Matrix origin,key="ed25519:1",sig="{SIG}"',
    "blanks instead of commas": f'X-Matrix origin="a" key="ed25519:1" sig="{SIG}"',
    "another algorithm": f'X-Matrix origin="a",key="rsa:1",sig="{SIG}"',
    "a key id without version": f'X-Matrix origin="a",key="ed25519:",sig="{SIG}"',
    "a key id with a blank": f'X-Matrix origin="a",key="ed25519:a b",sig="{SIG}"',
    "a signature too short": 'X-Matrix origin="a",key="ed25519:1",sig="AAAA"',
    "a signature too long": f'X-Matrix origin="a",key="ed25519:1",sig="{SIG}A"',
    "a signature that is not base64": f'X-Matrix origin="a",key="ed25519:1",sig="{"!" * 86}"',
    "too long": f'X-Matrix origin="{"a" * MAX_HEADER}",key="ed25519:1",sig="{SIG}"',
    "too many parameters": f'X-Matrix origin="a",key="ed25519:1",sig="{SIG}"'
    + "".join(f",p{n}=1" for n in range(50)),
}


@pytest.mark.parametrize("header", BAD.values(), ids=BAD.keys())
def test_what_is_malformed_is_refused(header: str) -> None:
    with pytest.raises(BadHeader):
        parse(header)


@given(st.text(alphabet=st.sampled_from('X-Matrix origin=key,sig"\\ \t:ed25519[]\x00é'), max_size=300))
def test_no_header_does_more_than_be_refused(text: str) -> None:
    for header in (text, "X-Matrix " + text):
        try:
            parsed = parse(header)
        except BadHeader:
            continue
        assert is_key_id(parsed.key_id)


@given(
    st.text(
        st.characters(exclude_characters='"\\', max_codepoint=0x7E, min_codepoint=0x20),
        min_size=1,
        max_size=60,
    ),
    st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20), max_size=60),
)
def test_quoting_round_trips(origin: str, destination: str) -> None:
    escaped = destination.replace("\\", "\\\\").replace('"', '\\"')
    header = f'X-Matrix origin="{origin}",destination="{escaped}",key="ed25519:1",sig="{SIG}"'
    parsed = parse(header)
    assert (parsed.origin, parsed.destination) == (origin, destination)


@pytest.mark.parametrize("filler", ["a=", ",", " ,", 'a="', '\\"', '"a"', "=", "a=b ", '"\\'])
def test_parsing_takes_linear_time(filler: str) -> None:
    header = ("X-Matrix origin=" + filler * MAX_HEADER)[:MAX_HEADER]
    start = time.thread_time()
    for _ in range(5):
        with pytest.raises(BadHeader):
            parse(header)
    assert time.thread_time() - start < 1.0


@pytest.mark.parametrize("content", [None, {}, {"b": 1, "a": [{"z": 1.5, "ä": "\u2028"}]}])
def test_what_is_signed_is_the_canonical_json_of_the_request(content: object) -> None:
    whole = {"method": "PUT", "uri": "/a%2Fb?c=d", "origin": "one.test", "destination": "two.test"}
    if content is not None:
        whole["content"] = content  # type: ignore[assignment]  # a dict of mixed values
    message = signed_bytes(
        method="PUT",
        uri="/a%2Fb?c=d",
        origin="one.test",
        destination="two.test",
        content=None if content is None else canonical.encode(content),
    )
    assert message == canonical.encode(whole)

"""Which addresses a prompt may hold, and where addresses are looked for."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest

from gateway.domain.call import Fields
from gateway.edge.images import refuse_addresses
from gateway.errors import ImageAddressRefused, InvalidRequest

SMALL = "data:image/png;base64,iVBORw0KGgo="
PUBLIC = ("*",)
LISTED = ("img.example.com", ".cdn.example.org", "storage")

INTERNAL = "." + "internal"  # in two, for the house's search for what is named after one network

INSIDE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://0/",
    "http://0.0.0.0:8000/",
    "http://10.1.2.3/a.png",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://198.18.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:a00:1]/",
    "http://[64:ff9b::a00:1]/",
    "http://[2002:a00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST:8080/",
    "http://localhost./",
    "http://a.localhost/",
    "http://redis:6379/",
    "http://printer.local/",
    f"http://metadata.google{INTERNAL}/",
    f"http://metadata.google{INTERNAL}./",
    "http://1.0.0.10.in-addr.arpa/",
]
MISREAD = [
    "http://img.example.com@10.0.0.1/",
    "http://user:password@img.example.com/",
    "http://img.example.com\\@10.0.0.1/",
    "http://img.example.com#@10.0.0.1/",
    "http://img.example.com?@10.0.0.1/",
    "http://img.example.com:80@10.0.0.1/",
    "http://img.example.com\t/",
    "http://img.example.com\n.inside/",
    " http://img.example.com/",
    "http://img.example.com/ b",
    "http:img.example.com/",
    "http:/img.example.com/",
    "http:///img.example.com/",
    "//img.example.com/a.png",
    "http://img%2eexample.com/",
    "http://ｉmg.example.com/",  # noqa: RUF001 - a letter that some parsers take for an i
    "http://img.example。com/",
    "http://①②⑦.⓪.⓪.①/",
    "http://img..example.com/",
    "http://.example.com/",
    "http://img.example.com:/",
    "http://img.example.com:123456/",
    "http://[img.example.com]/",
    "http://[::1/",
    "HTTP://img.example.com/",
    "ftp://img.example.com/",
    "file:///etc/passwd",
    "gopher://img.example.com/",
    "s3://bucket/key",
    "/etc/passwd",
    "a.png",
    "DATA:image/png;base64,AAAA",
    " data:image/png;base64,AAAA",
    "",
]


def fields_of(**values: object) -> Fields:
    """Return the top level of a body with these fields."""
    return msgspec.json.decode(json.dumps(values), type=Fields)


def chat_with(part: object) -> Fields:
    """Return a conversation whose second message holds a part."""
    text = {"type": "text", "text": 'the "image_url" of http://10.0.0.1'}
    return fields_of(
        messages=[{"role": "user", "content": "hi"}, {"role": "user", "content": [text, part]}], model="sim"
    )


def image(address: object) -> Fields:
    """Return a conversation with an image at an address."""
    return chat_with({"type": "image_url", "image_url": {"url": address}})


@pytest.mark.parametrize("address", [*INSIDE, *MISREAD, "https://img.example.com/a.png"])
def test_data_alone_may_pass_unless_hosts_are_given(address: str) -> None:
    with pytest.raises(ImageAddressRefused) as refused:
        refuse_addresses(image(address), ())
    assert refused.value.param == "messages[1].content[1].image_url"
    refuse_addresses(image(SMALL), ())


@pytest.mark.parametrize("address", [*INSIDE, *MISREAD])
def test_no_address_inside_and_none_of_two_readings_passes_as_public(address: str) -> None:
    for hosts in (PUBLIC, (*PUBLIC, *LISTED)):
        with pytest.raises(ImageAddressRefused):
            refuse_addresses(image(address), hosts)


@pytest.mark.parametrize(
    "address",
    [
        "https://img.example.com/a.png?b=c@d#e",
        "http://img.example.com",
        "http://IMG.example.com.:8080/",
        "http://93.184.215.14/a",
        "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
        "https://xn--mg-uja.example/",
        SMALL,
    ],
)
def test_public_addresses_pass_where_they_may(address: str) -> None:
    refuse_addresses(image(address), PUBLIC)


@pytest.mark.parametrize(
    ("address", "passes"),
    [
        ("https://img.example.com/a", True),
        ("https://IMG.EXAMPLE.COM./a", True),
        ("https://a.b.cdn.example.org/a", True),
        ("http://storage:9000/a", True),
        (SMALL, True),
        ("https://cdn.example.org/a", False),
        ("https://xcdn.example.org/a", False),
        ("https://example.com/a", False),
        ("https://img.example.com.evil.test/a", False),
        ("https://b.img.example.com/a", False),
        ("http://93.184.215.14/a", False),
    ],
)
def test_a_list_of_hosts_is_all_that_passes(address: str, passes: bool) -> None:  # noqa: FBT001 - a column of the table
    if passes:
        refuse_addresses(image(address), LISTED)
    else:
        with pytest.raises(ImageAddressRefused):
            refuse_addresses(image(address), LISTED)


BAD = "http://10.0.0.1/"
PARTS: list[Any] = [
    {"type": "image_url", "image_url": BAD},
    {"image_url": BAD},
    {"type": "image_url", "image_url": [BAD]},
    {"type": "image_url", "image_url": [{"url": BAD}]},
    {"type": "video_url", "video_url": {"url": BAD}},
    {"type": "audio_url", "audio_url": {"url": BAD}},
    {"type": "input_image", "image_url": BAD, "detail": "low"},
    {"type": "input_file", "file_url": BAD},
    {"type": "file", "file": {"file_data": BAD}},
    {"type": "file", "file": {"file_id": BAD}},
    {"type": "input_audio", "input_audio": {"data": BAD, "format": "wav"}},
    {"type": "input_audio", "input_audio": BAD},
    {"type": "image", "source": {"type": "url", "url": BAD}},
    {"type": "document", "source": {"type": "url", "url": BAD}},
    {"type": "image", "url": BAD},
    {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": BAD}}]},
    {"type": "function_call_output", "output": [{"type": "input_image", "image_url": BAD}]},
    {"Type": "Image_URL", "IMAGE_url": {"Url": BAD}},
    {"text": "x", "image": BAD},
    {"text": "x", "video": BAD},
    {"type": "input_image", "image": BAD},
    {"type": "audio", "audio": [{"url": BAD}]},
    {"Image": "file:/etc/passwd"},
    {"image": " //10.0.0.1/a"},
    {"image": "ht\ntp://10.0.0.1/"},
    {"image": "/srv/others/cat.PNG"},
]


@pytest.mark.parametrize("part", PARTS, ids=json.dumps)
@pytest.mark.parametrize("field", ["messages", "input", "system", "prompt", "unheard_of"])
def test_every_shape_of_a_part_is_found_wherever_it_is(part: Any, field: str) -> None:
    for value in ([part], [{"role": "user", "content": [part]}], part):
        with pytest.raises(ImageAddressRefused) as refused:
            refuse_addresses(fields_of(**{field: value}), ())
        assert refused.value.param is not None
        assert refused.value.param.startswith(field)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": '{"image_url": "http://10.0.0.1/"}'},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-abc", "filename": "a:b.pdf"}},
        {"type": "file", "file": {"file_data": SMALL}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "tool_use", "id": "t", "name": "fetch", "input": {"image_url": BAD, "type": "url", "url": BAD}},
        {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://a.example/"}]},
        {"type": "function_call", "arguments": '{"url": "http://10.0.0.1/"}'},
        {"text": "x", "image": "a cat"},
        {"image": "Note: a cat, see fig. 2"},
        {"image": "/9j/4AAQSkZJRgABAQ=="},
        {"video": SMALL},
        {"role": "assistant", "audio": {"id": "audio_abc"}},
        {"image": None, "video": 5},
        {"type": "image_url", "image_url": None},
        {"type": "image_url", "image_url": {"detail": "low", "url": None, "size": 10}},
    ],
    ids=json.dumps,
)
def test_what_no_engine_fetches_passes(part: Any) -> None:
    refuse_addresses(chat_with(part), ())
    refuse_addresses(fields_of(input=[part]), ())


def test_what_describes_tools_may_name_addresses() -> None:
    schema = {"type": "object", "properties": {"url": {"type": "string", "examples": [{"image_url": BAD}]}}}
    refuse_addresses(fields_of(tools=[{"function": {"parameters": schema}}], metadata={"image_url": BAD}), ())


@pytest.mark.parametrize(
    "text",
    [
        f'{{"image_url": {{"url": "{BAD}", "url": "{SMALL}"}}}}',
        f'{{"image_url": {{"url": "{SMALL}", "url": "{BAD}"}}}}',
        f'{{"image_url": "{BAD}", "image_url": "{SMALL}"}}',
        f'{{"type": "tool_use", "type": "image", "input": {{"image_url": "{BAD}"}}}}',
        f'{{"type": "url", "type": "text", "url": "{BAD}"}}',
    ],
)
def test_no_doubled_key_hides_another(text: str) -> None:
    with pytest.raises(ImageAddressRefused):
        refuse_addresses({"messages": msgspec.Raw(f"[{text}]".encode())}, ())


@pytest.mark.parametrize("key", ['"image" \t\r\n', '"VIDEO"', '"au\\u0064io" '])
def test_a_bare_key_is_found_however_it_is_written(key: str) -> None:
    with pytest.raises(ImageAddressRefused):
        refuse_addresses({"input": msgspec.Raw(f'[{{{key}:"{BAD}"}}]'.encode())}, ())


def test_no_letter_beyond_ascii_is_one_of_the_keys() -> None:
    """What the search for keys stands on."""
    letters = set("image_urlvideoaudiofile_idfile_datainput_audio")
    same = {chr(code) for code in range(sys.maxunicode + 1) if chr(code).lower() in letters}
    assert all(character.isascii() for character in same)


def test_a_field_that_cannot_be_looked_through_is_refused() -> None:
    deep = b'[{"image_url": ' + b"[" * 5000 + b"]" * 5000 + b"}]"
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        refuse_addresses({"messages": msgspec.Raw(deep)}, ())
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        refuse_addresses({"messages": msgspec.Raw(b'[{"image_url": "\xff"}]')}, ())


def test_a_long_or_strange_place_is_named_shortly() -> None:
    with pytest.raises(ImageAddressRefused) as refused:
        refuse_addresses(fields_of(**{"m" * 500: {"\u00e9\n": {"image_url": BAD}}}), ())
    assert refused.value.param == "m" * 200

"""What may come to the Omaha endpoint: hypothesis strategies, from what real programs sent to plain nonsense."""

import re
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from hypothesis import strategies as st

from outrider.core.omaha import MAX_REQUEST_BYTES
from tests.support.captures import captured_files, read_http
from tests.support.service_examples import APP

CAPTURED = [read_http(name).body for name in captured_files("**/*.request.bin")]
APPS = [
    APP,
    f"{{{APP.upper()}}}",
    f" {APP} ",
    "paused",
    "moved",
    "image",
    "{da7508e2-9b33-490a-bead-60919b1acd76}",
    "web",
]
TRACKS = ["beta", "BETA", "", "stable", "../beta", "beta/target"]
VERSIONS = ["0.9.0", "1.0.0", "2.0.0", "10.0.0-rc.1+b", "", "1.0", "v1.0.0", "0.0.0", "9" * 5000 + ".0.0"]
MACHINES = ["web-1", "{WEB-1}", "web-2", "", " ", "a/b", "..", "x" * 129]
EVENTS = [("13", "1"), ("14", "1"), ("800", "1"), ("3", "1"), ("3", "2"), ("3", "0"), ("1", "0"), ("9" * 16, "-1")]
WRONG_NUMBERS = ["", " 3 ", "three", "3.0", "0x3", "1e3", "٣", "9" * 17, "--3", "1_000"]
ODD_NAMES = ["xmlns:x", "xml:lang", "dedup", "hash", "_", "appId", "ismachine", "Ünï"]
NO_APP = '<app appid="a"><updatecheck/></app>'
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One request. ``is_sound``: a server that answers anything but an Omaha response has failed."""

    body: bytes
    path: str = "/v1/update"
    headers: dict[str, str] = field(default_factory=dict)
    is_sound: bool = False


def long(letter: str, least: int, most: int) -> st.SearchStrategy[str]:
    """One letter very often: hypothesis itself makes short texts."""
    return st.integers(least, most).map(lambda times: letter * times)


words = st.one_of(
    st.text(max_size=30).map(lambda text: _NOT_XML.sub("", text)),
    st.sampled_from(["\t", "\n", "\r\n", "\u2028", "\ufffd", "\U0001f680", "<&>\"'", "]]>", "%00", "{}", "' OR 1=1"]),
    long("x", 100, 5000),
    long("\u20ac", 100, 2000),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.sampled_from(["text/xml", "application/json", "text/xml; charset=utf-16", "a/b", ""]),
        "host": st.sampled_from(["updates.example", "[::1]:8000", "a b", "x/../y", "\xff", '"><x', "h" * 300, ""]),
        "content_length": st.sampled_from(["0", "-1", "x", "1e9", " 5"]),
        "user_agent": st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
        "x_forwarded_for": st.sampled_from(["10.0.0.1", "x", ""]),
    },
)
paths = st.sampled_from(["/v1/update", "/v1/update/", "/v1/update?a=b", "/v1/update?%ff=%"])


def element(name: str, facts: dict[str, str], inner: str = "") -> str:
    """An element with attributes; what they say is escaped, what is in it isn't."""
    said = "".join(f" {key}={_quoted(value)}" for key, value in facts.items())
    return f"<{name}{said}>{inner}</{name}>"


def _quoted(text: str) -> str:
    # A carriage return, a line feed and a tab stay what they are only when they are spelled as references.
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


numbers = st.integers(-(10**15), 10**15).map(str)
events = st.one_of(
    st.sampled_from(EVENTS).map(lambda pair: {"eventtype": pair[0], "eventresult": pair[1]}),
    st.fixed_dictionaries(
        {"eventtype": numbers}, optional={"eventresult": numbers, "errorcode": numbers, "previousversion": words}
    ),
)


prefixes = st.one_of(st.sampled_from(["", "2.", "2.0.0"]), words)
"""Versions that an instance asks for: only those that begin so."""


@st.composite
def apps(draw: st.DrawFn) -> str:
    """An ``<app>`` that has what it needs, with whatever else."""
    if draw(st.booleans()):  # an app and an instance that exist, so that much comes to be decided
        known = {"appid": draw(st.sampled_from(APPS)), "track": "beta", "machineid": "web-1", "version": "1.0.0"}
    else:
        known = {"appid": draw(st.one_of(st.sampled_from(APPS), words.filter(str.strip)))}
    facts = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "version": st.one_of(st.sampled_from(VERSIONS), words),
                "track": st.one_of(st.sampled_from(TRACKS), words),
                "machineid": st.one_of(st.sampled_from(MACHINES), words),
                "bootid": words,
                "machinealias": words,
                "oem": words,
                "board": words,
                draw(st.sampled_from(ODD_NAMES[2:])): words,
            },
        )
    )
    facts |= known
    children = draw(
        st.lists(
            st.one_of(
                st.just(element("updatecheck", {})),
                prefixes.map(lambda text: element("updatecheck", {"targetversionprefix": text})),
                st.just(element("ping", {"active": "1", "r": "-1"})),
                events.map(lambda facts: element("event", facts)),
                st.just(element("cohort", {"hint": "7"}, "<event/>text<!-- <updatecheck/> -->")),
            ),
            max_size=6,
        )
    )
    return element("app", facts, "".join(children))


@st.composite
def sound_texts(draw: st.DrawFn) -> str:
    """A whole request that must be answered, unless it is too large."""
    facts = {"protocol": draw(st.sampled_from(["3.0", "3.1", "3.999"]))} | draw(
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(["version", "requestid", "sessionid", "userid", "installsource"], words)
        )
    )
    system = draw(st.sampled_from(["", element("os", {"platform": "CoreOS", "sp": "1_x86_64"}), "<os/><os/>"]))
    inner = "".join(draw(st.lists(apps(), min_size=1, max_size=5)))
    many = draw(st.sampled_from([1] * 40 + [20]))  # up to 100 apps
    return element("request", facts, system + inner * many)


def _is_sound(body: bytes) -> bool:
    return len(body) <= MAX_REQUEST_BYTES and body.count(b"<event") <= 100


@st.composite
def structured(draw: st.DrawFn) -> Input:
    """A sound request with odd attributes, values and headers."""
    declaration = draw(st.sampled_from(["", '<?xml version="1.0" encoding="UTF-8"?>\n']))
    body = (declaration + draw(sound_texts())).encode()
    return Input(body=body, path=draw(paths), headers=draw(headers), is_sound=_is_sound(body))


@st.composite
def broken_structures(draw: st.DrawFn) -> Input:
    """Well-formed XML with one thing in it that isn't as it should be."""
    text = draw(sound_texts())
    wrong = draw(
        st.one_of(
            st.sampled_from(
                [
                    ('protocol="3', 'protocol="2'),
                    ("<request", "<response"),
                    ("<request ", '<request xmlns="urn:x" '),
                    ("appid=", "appID="),
                    ("<app ", "<app appid='twice' "),
                    ("</request>", ""),
                    ("</request>", "</request>" * 2),
                    ("<app ", "<x:app "),
                    ("<app ", "<app cohort:hint='7' "),
                    ("<request", "<?php echo 1 ?><request"),
                ]
            ),
            st.sampled_from(WRONG_NUMBERS).map(lambda n: ("</app>", f'<event eventtype="{n}" eventresult="1"/></app>')),
            st.integers(95, 3000).map(lambda n: ("</app>", "<event/>" * n + "</app>")),
            st.integers(95, 900).map(lambda n: ("</request>", NO_APP * n + "</request>")),
            st.integers(200, 9000).map(lambda n: ("</app>", "<a>" * n + "</a>" * n + "</app>")),
            st.integers(1, 6000).map(lambda n: ("<app ", "<app " + " ".join(f'a{i}=""' for i in range(n)) + " ")),
            st.integers(60_000, 70_000).map(lambda n: ("</app>", "</app>" + " " * n)),
            st.sampled_from(["\0", "\x1b", "\ufffe", "&#0;", "&#xD800;", "&#x110000;", "&nbsp;", "&"]).map(
                lambda odd: ('appid="', f'appid="{odd}')
            ),
        )
    )
    return Input(body=text.replace(wrong[0], wrong[1], 1).encode(), path=draw(paths), headers=draw(headers))


@st.composite
def mutated(draw: st.DrawFn) -> Input:
    """What a real program sent, with a few bytes changed, gone, doubled, or from another request."""
    body = draw(st.sampled_from(CAPTURED))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.one_of(st.integers(0, 4), st.integers(0, 400))))
        other = draw(st.sampled_from(CAPTURED))
        begin = draw(st.integers(0, len(other)))
        put = draw(
            st.one_of(
                st.binary(max_size=4),
                st.just(body[start:end] * 2),
                st.just(other[begin : begin + 60]),
                words.map(str.encode),
                st.sampled_from([b'"', b"<", b">", b"&", b"\0", b"<!--", b"<![CDATA[", b"\xff\xfe", b"]]>"]),
            )
        )
        body = body[:start] + put + body[end:]
    return Input(body=body, path=draw(paths), headers=draw(headers))


CODECS = (
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7", "cp037",
    "gb18030",
)  # fmt: skip
DECLARED = (
    "UTF-8", "utf8", "UTF-16", "UTF-16LE", "UTF-32", "ISO-8859-1", "windows-1252", "US-ASCII", "UTF-7", "EBCDIC-CP-US",
    "GB18030", "x",
)  # fmt: skip


@st.composite
def encoded(draw: st.DrawFn) -> Input:
    """A request in some encoding that declares some encoding, the same or another."""
    declaration = draw(st.sampled_from(["", *(f'<?xml version="1.0" encoding="{name}"?>' for name in DECLARED)]))
    text = declaration + draw(st.one_of(sound_texts(), st.sampled_from(CAPTURED).map(bytes.decode)))
    body = text.encode(draw(st.sampled_from(CODECS)), "replace")
    return Input(body=draw(st.sampled_from([b""] * 6 + [b" ", b"\xef\xbb\xbf", b"\xff\xfe", b"\0"])) + body)


def entities(secret_file: str) -> st.SearchStrategy[Input]:
    """Documents with a DTD, and references to what it may define: files, addresses, entities within entities."""
    laughs = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    definitions = st.sampled_from(
        [
            '<!ENTITY e "web">',
            f'<!ENTITY e SYSTEM "file://{secret_file}">',
            f'<!ENTITY % p SYSTEM "file://{secret_file}"> %p;',
            '<!ENTITY e SYSTEM "http://127.0.0.1:9/x">',
            f'<!ENTITY e0 "ha"> {laughs} <!ENTITY e "&e8;">',
            '<!ENTITY e "&e;">',
            "<!ATTLIST app appid CDATA 'web' updatecheck CDATA 'x'>",
            "<!ELEMENT request ANY>",
            "",
        ]
    )
    outside = f'<!DOCTYPE request SYSTEM "file://{secret_file}" [{{}}]>'
    doctypes = st.sampled_from(["<!DOCTYPE request [{}]>", "<!doctype request [{}]>", outside, "{}", ""])
    include = "<xi:include href='file:///etc/passwd'/>"
    prologs = ["", '<?xml version="1.0"?>', "<!-- c -->", '<?xml version="1.0" standalone="no"?>\n']

    @st.composite
    def made(draw: st.DrawFn) -> Input:
        doctype = draw(doctypes).format(draw(definitions))
        where = draw(st.sampled_from(['appid="', "</app>", "<app ", "</request>"]))
        reference = draw(st.sampled_from(["&e;", "&e8;", "%p;", "&lt;", "&#x65;", include, ""]))
        text = draw(sound_texts())
        text = text.replace(where, where + reference if where.endswith('"') else reference + where, 1)
        before = draw(st.sampled_from(prologs))
        codec = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-16-be", "utf-7"]))
        return Input(body=(before + doctype + text).encode(codec), path=draw(paths))

    return made()


nonsense = st.one_of(
    st.binary(max_size=2000),
    st.text(max_size=500).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(st.binary(min_size=1, max_size=4), st.integers(1, 80_000)).map(lambda pair: pair[0] * pair[1]),
    st.sampled_from([b"", b"<", b"<request", b"{}", b"null", b"<request/>", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b"]),
).flatmap(lambda body: st.builds(Input, body=st.just(body), path=paths, headers=headers))

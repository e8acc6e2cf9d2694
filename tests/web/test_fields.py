"""Each rule of RFC 9110 and 9112 about fields, as a statement."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from hoft.web.http.fields import (
    Body,
    Framing,
    authority,
    check_fields,
    content_length,
    elements,
    expects_continue,
    host,
    is_token,
    request_framing,
    response_framing,
    values,
    with_length,
    without,
)
from hoft.web.http.heads import Fields
from hoft.web.http.intermediary import (
    check_loop,
    end_to_end,
    max_forwards,
    trailers,
    via,
    with_forwarded,
    with_via,
)
from hoft.web.http.problems import Refused, bad_response


class FieldsCase(SynchronousTestCase):
    def status(self, function: Callable[..., object], *arguments: object) -> int:
        """The status with which the call is refused."""
        error: Refused = self.assertRaises(Refused, function, *arguments)
        return error.problem.status


class SyntaxTests(FieldsCase):
    def test_names_are_tokens(self) -> None:
        """RFC 9110 5.1, 5.6.2."""
        check_fields([(b"X-A_b.c~1!#$%&'*+^`|", b"")])
        for name in (b"", b"a b", b"a:", b"a\t", b" a", b"a(", b"a\x00", b"a\r\nb", b"\xe9", b"a,b", b'a"'):
            self.assertEqual(self.status(check_fields, [(name, b"v")]), 400, name)

    def test_values_hold_no_controls(self) -> None:
        """RFC 9110 5.5."""
        check_fields([(b"A", b"a\tb \xff\x80~"), (b"B", b"")])
        for value in (b"a\rb", b"a\nb", b"a\r\n b", b"a\x00", b"\x7f", b"a\x0bb", b"a\x01"):
            self.assertEqual(self.status(check_fields, [(b"A", value)]), 400, value)

    def test_white_space_around_values_is_not_part_of_them(self) -> None:
        """RFC 9112 5: a parser has to take it off; what begins with some was folded (5.2)."""
        for value in (b" a", b"a ", b"\ta", b" "):
            self.assertEqual(self.status(check_fields, [(b"A", value)]), 400, value)

    def test_a_response_is_the_services_mistake(self) -> None:
        error = self.assertRaises(Refused, check_fields, [(b"a b", b"")], bad_response)
        self.assertEqual((error.problem.status, error.problem.proxy_error), (502, "http_protocol_error"))

    def test_names_are_found_in_any_case_and_order_is_kept(self) -> None:
        """RFC 9110 5.1, 5.3."""
        fields = [(b"Set-Cookie", b"a"), (b"X", b"y"), (b"set-cookie", b"b")]
        self.assertEqual(values(fields, b"set-cookie"), [b"a", b"b"])
        self.assertEqual(without(fields, [b"x"]), [fields[0], fields[2]])

    def test_lists_have_no_empty_elements(self) -> None:
        """RFC 9110 5.6.1.2."""
        self.assertEqual(elements([(b"A", b", a ,,b\t,"), (b"a", b"c")], b"a"), [b"a", b"b", b"c"])

    def test_methods_are_tokens(self) -> None:
        self.assertTrue(is_token(b"M-SEARCH"))
        self.assertFalse(is_token(b"GET "))
        self.assertFalse(is_token(b""))
        self.assertFalse(is_token(b"GET\n"))


class HopByHopTests(FieldsCase):
    def test_fields_of_one_connection_are_not_forwarded(self) -> None:
        """RFC 9110 7.6.1."""
        for name in (
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Transfer-Encoding",
            b"TE",
            b"Upgrade",
            b"HTTP2-Settings",
            b"Proxy-Authenticate",
            b"Proxy-Authentication-Info",
            b"Proxy-Authorization",
        ):
            self.assertEqual(end_to_end([(name, b"x"), (b"A", b"b")]), [(b"A", b"b")], name)

    def test_what_connection_names_is_not_forwarded(self) -> None:
        """RFC 9110 7.6.1: before the message is forwarded, in any case of letters."""
        fields = [
            (b"Connection", b"close, X-Hop ,,"),
            (b"x-hop", b"1"),
            (b"X-Hop", b"2"),
            (b"X-Other", b"3"),
            (b"connection", b"x-more"),
            (b"X-More", b"4"),
        ]
        self.assertEqual(end_to_end(fields), [(b"X-Other", b"3")])

    def test_everything_else_is_untouched(self) -> None:
        fields = [
            (b"Cookie", b"a=b; c=d"),
            (b"Content-Encoding", b"gzip"),
            (b"Accept-Encoding", b"br"),
            (b"Authorization", b"Basic eA=="),
            (b"Trailer", b"X-Sum"),
            (b"X-\xc3", b"odd"),
            (b"set-cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ]
        self.assertEqual(end_to_end(fields), fields)

    def test_a_length_stays_where_it_was_and_is_what_is_true(self) -> None:
        """RFC 9110 8.6, 5.3; of several, which only a peer of ours could send, the first counts."""
        fields = [(b"A", b"1"), (b"content-LENGTH", b"9"), (b"B", b"2"), (b"Content-Length", b"7")]
        self.assertEqual(end_to_end(fields), fields)
        self.assertEqual(with_length(fields, 3), [(b"A", b"1"), (b"content-LENGTH", b"3"), (b"B", b"2")])
        self.assertEqual(with_length(fields, None), [(b"A", b"1"), (b"B", b"2")])
        self.assertEqual(with_length([(b"A", b"1")], 0), [(b"A", b"1"), (b"Content-Length", b"0")])

    def test_trailers_hold_nothing_that_frames_routes_or_authorises(self) -> None:
        """RFC 9110 6.5.1."""
        bad = [
            (name, b"x")
            for name in (
                b"Content-Length",
                b"Transfer-Encoding",
                b"Host",
                b"Authorization",
                b"Set-Cookie",
                b"Content-Type",
                b"Cache-Control",
                b"Trailer",
                b"Connection",
                b"TE",
                b"X-Forwarded-For",
            )
        ]
        good = [(b"X-Checksum", b"1"), (b"ETag", b"2"), (b"Server-Timing", b"3")]
        self.assertEqual(trailers(bad + good), good)


class RequestFramingTests(FieldsCase):
    def test_no_length_is_no_body(self) -> None:
        """RFC 9112 6.3 rule 7."""
        self.assertEqual(request_framing((1, 1), []), Framing(Body.NONE))

    def test_content_length_is_the_length(self) -> None:
        """RFC 9112 6.3 rule 6."""
        self.assertEqual(request_framing((1, 1), [(b"content-length", b"0010")]), Framing(Body.LENGTH, 10))
        self.assertEqual(request_framing((1, 0), [(b"Content-Length", b"0")]), Framing(Body.NONE, 0))

    def test_chunked_has_no_length(self) -> None:
        """RFC 9112 6.3 rule 4."""
        for value in (b"chunked", b"Chunked", b"CHUNKED"):
            fields = [(b"Transfer-Encoding", value)]
            self.assertEqual(request_framing((1, 1), fields), Framing(Body.CHUNKED))

    def test_whatever_could_be_read_in_two_ways_is_refused(self) -> None:
        """RFC 9112 6.1, 6.3 rules 3 to 5, 11.2."""
        for name, fields in SMUGGLING.items():
            try:
                framing = request_framing((1, 1), fields)
            except Refused as error:
                self.assertIn(error.problem.status, (400, 501), name)
            else:
                self.fail(f"{name} was read as {framing}")

    def test_chunked_in_http_1_0_is_refused(self) -> None:
        """RFC 9112 6.1."""
        self.assertEqual(self.status(request_framing, (1, 0), [(b"Transfer-Encoding", b"chunked")]), 400)

    def test_codings_that_are_not_known_are_not_implemented(self) -> None:
        """RFC 9112 6.1: 501."""
        for fields in (
            [(b"Transfer-Encoding", b"gzip, chunked")],
            [(b"Transfer-Encoding", b"gzip"), (b"Transfer-Encoding", b"chunked")],
        ):
            self.assertEqual(self.status(request_framing, (1, 1), fields), 501)

    def test_100_continue_is_the_one_expectation(self) -> None:
        """RFC 9110 10.1.1."""
        self.assertTrue(expects_continue((1, 1), [(b"Expect", b"100-Continue")]))
        self.assertFalse(expects_continue((1, 0), [(b"Expect", b"100-continue")]))
        self.assertFalse(expects_continue((1, 1), []))
        self.assertEqual(self.status(expects_continue, (1, 1), [(b"Expect", b"a-pony")]), 417)
        self.assertEqual(self.status(expects_continue, (1, 1), [(b"Expect", b"100-continue, x")]), 417)


SMUGGLING: dict[str, Fields] = {
    "CL and TE": [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
    "TE and CL": [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"5")],
    "CL 0 and TE": [(b"Content-Length", b"0"), (b"Transfer-Encoding", b"chunked")],
    "CL and another TE": [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"identity")],
    "two that differ": [(b"Content-Length", b"5"), (b"Content-Length", b"6")],
    "two that agree": [(b"Content-Length", b"5"), (b"content-length", b"5")],
    "a list": [(b"Content-Length", b"5, 5")],
    "a sign": [(b"Content-Length", b"+5")],
    "a negative one": [(b"Content-Length", b"-1")],
    "hexadecimal": [(b"Content-Length", b"0x5")],
    "an underscore": [(b"Content-Length", b"1_0")],
    "nothing": [(b"Content-Length", b"")],
    "a blank": [(b"Content-Length", b"1 0")],
    "a fraction": [(b"Content-Length", b"5.0")],
    "other digits": [(b"Content-Length", "\u0665".encode())],
    "superscript": [(b"Content-Length", b"\xb2")],
    "a vertical tab": [(b"Content-Length", b"\x0b5")],
    "a huge one": [(b"Content-Length", b"9" * 40)],
    "chunked twice": [(b"Transfer-Encoding", b"chunked, chunked")],
    "chunked in two fields": [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
    "chunked and identity": [(b"Transfer-Encoding", b"chunked, identity")],
    "identity": [(b"Transfer-Encoding", b"identity")],
    "chunked not last": [(b"Transfer-Encoding", b"chunked, gzip")],
    "no coding": [(b"Transfer-Encoding", b"")],
    "xchunked": [(b"Transfer-Encoding", b"xchunked")],
    "quoted": [(b"Transfer-Encoding", b'"chunked"')],
    "a parameter": [(b"Transfer-Encoding", b"chunked;a=b")],
    "a vertical tab before chunked": [(b"Transfer-Encoding", b"\x0bchunked")],
    "a comma before": [(b"Transfer-Encoding", b",chunked")],
    "a long s": [(b"Transfer-Encoding", "chun\u212aed".encode())],
}


class ResponseFramingTests(FieldsCase):
    def test_head_has_a_length_and_no_body(self) -> None:
        """RFC 9112 6.3 rule 1; RFC 9110 8.6."""
        fields = [(b"Content-Length", b"123")]
        self.assertEqual(response_framing(b"HEAD", 200, fields), Framing(Body.NONE, 123))
        self.assertEqual(
            response_framing(b"HEAD", 200, [(b"Transfer-Encoding", b"chunked")]), Framing(Body.NONE)
        )

    def test_not_modified_has_a_length_and_no_body(self) -> None:
        """RFC 9112 6.3 rule 1; RFC 9110 15.4.5."""
        fields = [(b"Content-Length", b"123")]
        self.assertEqual(response_framing(b"GET", 304, fields), Framing(Body.NONE, 123))

    def test_no_content_and_interim_ones_have_neither(self) -> None:
        """RFC 9110 8.6: no Content-Length with 1xx and 204."""
        for status in (100, 103, 204):
            fields = [(b"Content-Length", b"5")]
            self.assertEqual(response_framing(b"GET", status, fields), Framing(Body.NONE), status)

    def test_a_tunnel_has_neither(self) -> None:
        """RFC 9112 6.3 rule 2."""
        fields = [(b"Content-Length", b"5")]
        self.assertEqual(response_framing(b"CONNECT", 200, fields), Framing(Body.NONE))
        self.assertEqual(response_framing(b"CONNECT", 403, fields), Framing(Body.LENGTH, 5))

    def test_others_are_chunked_or_counted_or_end_with_the_connection(self) -> None:
        """RFC 9112 6.3 rules 4, 6, 8."""
        chunked = [(b"Transfer-Encoding", b"chunked")]
        self.assertEqual(response_framing(b"GET", 200, chunked), Framing(Body.CHUNKED))
        self.assertEqual(response_framing(b"GET", 404, [(b"Content-Length", b"5")]), Framing(Body.LENGTH, 5))
        self.assertEqual(response_framing(b"GET", 200, [(b"Content-Length", b"0")]), Framing(Body.NONE, 0))
        self.assertEqual(response_framing(b"GET", 200, []), Framing(Body.UNTIL_CLOSE))
        self.assertEqual(response_framing(b"head", 200, []), Framing(Body.UNTIL_CLOSE))

    def test_whatever_could_be_read_in_two_ways_is_refused(self) -> None:
        """RFC 9112 6.3 rules 3 to 5, also where no body is expected."""
        for name, fields in SMUGGLING.items():
            try:
                framing = response_framing(b"GET", 200, fields)
            except Refused as error:
                self.assertEqual(error.problem.status, 502, name)
            else:
                self.fail(f"{name} was read as {framing}")
        twice = [(b"Content-Length", b"1"), (b"Content-Length", b"2")]
        self.assertEqual(self.status(response_framing, b"HEAD", 200, twice), 502)

    def test_a_length_alone_can_be_read(self) -> None:
        self.assertEqual(content_length([(b"Content-Length", b"7")]), 7)
        self.assertIsNone(content_length([]))


class HostTests(FieldsCase):
    def test_there_is_exactly_one(self) -> None:
        """RFC 9112 3.2."""
        self.assertEqual(str(host((1, 1), [(b"host", b"Example.com:80")])), "example.com:80")
        self.assertEqual(self.status(host, (1, 1), []), 400)
        twice = [(b"Host", b"a"), (b"Host", b"a")]
        self.assertEqual(self.status(host, (1, 1), twice), 400)
        self.assertEqual(self.status(host, (1, 0), twice), 400)

    def test_http_1_0_may_do_without(self) -> None:
        self.assertIsNone(host((1, 0), []))

    def test_it_may_be_empty(self) -> None:
        """RFC 9112 3.2: where the target has no authority."""
        self.assertIsNone(host((1, 1), [(b"Host", b"")]))

    def test_it_is_a_host(self) -> None:
        """RFC 9110 7.2."""
        for value in (
            b"a b",
            b"a/b",
            b"a@b",
            b"a,b c",
            b"a\tb",
            b"[::1",
            b"a:b",
            b"http://a",
            b"\xe9",
            b"a#",
        ):
            self.assertEqual(self.status(host, (1, 1), [(b"Host", value)]), 400, value)

    def test_hosts_and_ports_are_taken_apart(self) -> None:
        """RFC 3986 3.2."""
        for text, name, port in (
            (b"h", "h", None),
            (b"H.Example.", "h.example.", None),
            (b"h:", "h", None),
            (b"h:80", "h", 80),
            (b"h:00080", "h", 80),
            (b"1.2.3.4:65535", "1.2.3.4", 65535),
            (b"[::1]", "::1", None),
            (b"[2001:DB8::0]:8", "2001:db8::", 8),
            (b"a_b-c", "a_b-c", None),
        ):
            found = authority(text)
            self.assertEqual((found.host, found.port, found.credentials), (name, port, None))

    def test_what_is_no_authority_is_refused(self) -> None:
        for text in (
            b"",
            b":80",
            b"h:0",
            b"h:65536",
            b"h:-1",
            b"h:+1",
            b"h:8 0",
            b"h:80:80",
            b"h:123456",
            b"h:\xb2",
            b"[]",
            b"[1.2.3.4]",
            b"[::1]x",
            b"[::1]80",
            b"[::1%eth0]",
            b"[::1%25eth0]",
            b"[v1.x]",
            b"::1",
            b"%41",
            b"a%2e",
            b"a\\b",
            b"a?b",
            b"a\x00",
            b"u@h",
            b"h" * 254,
        ):
            self.assertEqual(self.status(authority, text), 400, text)

    def test_credentials_are_taken_apart_where_they_may_be(self) -> None:
        found = authority(b"user:p%40%3A@h:1", credentials=True)
        self.assertEqual((found.host, found.port, found.credentials), ("h", 1, b"user:p%40%3A"))
        self.assertEqual(authority(b"@h", credentials=True).credentials, b"")
        for text in (b"a@b@h", b"a b@h", b"a/b@h", b"%zz@h", b"a%@h", b"u\xe9@h", b"u@"):
            self.assertEqual(self.status(authority, text, True), 400, text)


class ViaTests(FieldsCase):
    def test_we_come_last(self) -> None:
        """RFC 9110 7.6.3."""
        fields = with_via([(b"Via", b"1.0 fred"), (b"A", b"b")], "1.1", "near")
        self.assertEqual(fields, [(b"Via", b"1.0 fred"), (b"A", b"b"), (b"Via", b"1.1 near")])
        self.assertEqual(via(with_via(fields, "hoft/1", "far")), ["fred", "near", "far"])

    def test_comments_and_empty_members_are_skipped(self) -> None:
        """RFC 9110 5.6.5, 7.6.3."""
        value = b"1.0 Ricky, , 1.1 mertz (a, 1.1 near (nested) \\) 1.1 near), HTTP/1.1 Lucy:8080"
        self.assertEqual(via([(b"VIA", value)]), ["ricky", "mertz", "lucy:8080"])
        self.assertEqual(via([(b"Via", b"nonsense, 1.1 (")]), [])

    def test_who_is_named_there_already_is_in_a_loop(self) -> None:
        """RFC 9110 7.6.3."""
        fields = [(b"Via", b"1.1 a, 1.1 Near"), (b"Via", b"1.1 b")]
        error = self.assertRaises(Refused, check_loop, fields, "near")
        self.assertEqual((error.problem.status, error.problem.proxy_error), (502, "proxy_loop_detected"))
        check_loop(fields, "nea")
        check_loop([(b"Via", b"1.1 x (1.1 near)")], "near")
        check_loop([], "near")


class MaxForwardsTests(FieldsCase):
    def test_it_is_counted_down_for_trace_and_options(self) -> None:
        """RFC 9110 7.6.2."""
        fields = [(b"A", b"b"), (b"Max-forwards", b"10")]
        for method in (b"TRACE", b"OPTIONS"):
            self.assertEqual(max_forwards(method, fields), (True, [(b"A", b"b"), (b"Max-forwards", b"9")]))

    def test_at_zero_the_answer_is_ours(self) -> None:
        self.assertEqual(max_forwards(b"OPTIONS", [(b"Max-Forwards", b"0")])[0], False)

    def test_other_methods_ignore_it(self) -> None:
        fields = [(b"Max-Forwards", b"0")]
        self.assertEqual(max_forwards(b"GET", fields), (True, fields))
        self.assertEqual(max_forwards(b"TRACE", []), (True, []))

    def test_it_is_one_number(self) -> None:
        for found in ([b"x"], [b"-1"], [b""], [b"1", b"1"]):
            fields = [(b"Max-Forwards", value) for value in found]
            self.assertEqual(self.status(max_forwards, b"TRACE", fields), 400)


class ForwardedTests(FieldsCase):
    def test_the_caller_is_named(self) -> None:
        """RFC 7239 4."""
        fields = with_forwarded([(b"A", b"b")], "192.0.2.1", "http", "gateway:8080")
        self.assertEqual(
            fields,
            [
                (b"A", b"b"),
                (b"Forwarded", b'for=192.0.2.1;proto=http;host="gateway:8080"'),
                (b"X-Forwarded-For", b"192.0.2.1"),
            ],
        )

    def test_ipv6_is_quoted_and_bracketed(self) -> None:
        """RFC 7239 6."""
        fields = with_forwarded([], "2001:DB8::1", "https", None)
        self.assertEqual(fields[0][1], b'for="[2001:db8::1]";proto=https')
        self.assertEqual(fields[1][1], b"2001:DB8::1")

    def test_what_was_there_stays_before(self) -> None:
        fields = with_forwarded(
            [(b"Forwarded", b"for=x"), (b"X-Forwarded-For", b"x")], "1.2.3.4", "http", "h"
        )
        self.assertEqual([value for _, value in fields[:2]], [b"for=x", b"x"])

    def test_a_caller_without_an_address_is_unknown(self) -> None:
        """RFC 7239 6.2."""
        for caller in ("", "/run/socket", "1.2.3.4\r\nX: y", "1.2.3.4, 5.6.7.8", "\u0661.2.3.4"):
            fields = with_forwarded([], caller, "http", None)
            self.assertEqual(fields, [(b"Forwarded", b"for=unknown;proto=http")])

    def test_a_host_that_cannot_be_quoted_is_left_out(self) -> None:
        for name in ('a"b', "a\\b", "a\nb", "\u00fc", ""):
            self.assertNotIn(b"host", with_forwarded([], "1.2.3.4", "http", name)[0][1])

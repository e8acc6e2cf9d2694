"""
The egress between a near side that the test scripts and real services.
"""

from __future__ import annotations

from twisted.internet.defer import inlineCallbacks

from tests.web.services import EgressCase, Test, until, wait


class ExchangeTests(EgressCase):
    @inlineCallbacks
    def test_a_get_is_performed_and_answered(self) -> Test:
        call = yield self.near.call(
            self.head(target=b"/a%20b//C;x?d=%e4&e=%2F..", headers=[(b"X-Case", b"kept")])
        ).done
        self.assertEqual((call.status, call.head.reason, call.body), (200, b"OK", b"hello"))
        request = self.service.requests[0]
        self.assertEqual(request.line, b"GET /a%20b//C;x?d=%e4&e=%2F.. HTTP/1.1")

    @inlineCallbacks
    def test_a_post_is_performed_and_answered(self) -> Test:
        call = yield self.near.call(self.head(b"POST"), b"x" * 100_000).done
        self.assertEqual((call.status, call.body), (200, b"hello"))
        self.assertEqual(self.service.requests[0].body, b"x" * 100_000)

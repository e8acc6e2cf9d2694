"""
The ingress between real callers and a far side that the test scripts.
"""

from __future__ import annotations

import json

from twisted.internet.defer import inlineCallbacks

from tests.web.callers import IngressCase, Test


class CallTests(IngressCase):
    @inlineCallbacks
    def test_a_get_crosses_and_its_response_comes_back(self) -> Test:
        self.far.then = lambda request: request.answer(headers=[(b"X-Answer", b"yes")], body=b"hello")
        response = yield self.get(b"/svc/demo/a%2Fb/./c?d=%e4", b"X-Question: why")
        self.assertEqual((response.status, response.body), (200, b"hello"))
        self.assertEqual(response.fields(b"x-answer"), [b"yes"])
        self.assertEqual(response.fields(b"content-length"), [b"5"])
        head = self.far.one.head
        assert head is not None
        self.assertEqual(
            (head.method, head.scheme, head.host, head.port), (b"GET", "http", "service.example", 81)
        )
        self.assertEqual(head.target, b"/base/a%2Fb/./c?d=%e4")
        self.assertIn((b"X-Question", b"why"), head.headers)

    @inlineCallbacks
    def test_a_small_post_is_committed_at_once(self) -> Test:
        self.far.then = lambda request: request.answer(201, body=b"".join(request.body))
        commits = []
        commit = self.near.commit
        self.near.commit = lambda send=(), *more, **named: (
            commits.append(len(send)) or commit(send, *more, **named)
        )  # type: ignore[method-assign,func-returns-value,assignment]  # counted
        response = yield self.post(b"\x00\xffbody")
        self.assertEqual((response.status, response.body), (201, b"\x00\xffbody"))
        self.assertEqual([count for count in commits if count], [3], "HEAD, DATA, END")

    @inlineCallbacks
    def test_the_status_is_what_the_node_says(self) -> Test:
        self.status = {"node": "near", "links": {"far": {"state": "up"}}}
        response = yield self.get(b"/_hoft/status")
        self.assertEqual(json.loads(response.body), self.status)
        self.assertEqual(response.fields(b"content-type"), [b"application/json"])

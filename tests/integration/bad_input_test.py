"""Hostile bytes and too many of them, on raw sockets: each gets the published error, and the node stays as it was."""

import concurrent.futures
import json
import re
import socket
import time
import unittest

from support import NodeTest, main, wait_for

ENVELOPE = {"error": {"code": str, "message": str, "details": dict}}


def read_all(link):
    data = b""
    try:
        while block := link.recv(65536):
            data += block
    except (ConnectionResetError, TimeoutError):
        pass
    return data


def split(data):
    """Status, headers in lower case, body of the first response in `data`, and what follows it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", 0))
    return int(lines[0].split()[1]), headers, rest[:length], rest[length:]


class BadInput(NodeTest):
    def setUp(self):
        super().setUp()
        self.victim = self.node(settings={"training.enabled": False}).start().wait_up()
        self.before = self.victim.status()

    def tearDown(self):
        after = self.victim.status()
        self.assertEqual(after["node_id"], self.before["node_id"])
        self.assertTrue(self.victim.get("/api/v1/health").json()["healthy"])
        self.assertEqual(self.victim.terminate(), 0, self.victim.text()[-2000:])
        self.assertNotRegex(self.victim.log(), r"terminate called|Assertion|restarting actor")
        self.assertEqual(self.victim.ledger(), [])

    def exchange(self, data, timeout=20):
        with self.victim.connect(timeout) as link:
            try:
                link.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return read_all(link)

    def check_refusal(self, data, what):
        status, headers, body, _ = split(data)
        self.assertEqual(status, 400, (what, data[:300]))
        error = json.loads(body)["error"]
        self.assertEqual(error["code"], "INVALID_REQUEST", what)
        self.assertIsInstance(error["details"], dict)
        self.assertIn("x-request-id", headers, what)
        self.assertEqual(headers.get("connection", "").lower(), "close", what)

    def test_malformed_heads(self):
        token = self.victim.token
        for what in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\nGARBAGE\r\n\r\n", b"GET\r\n\r\n",
                     b"GET / HTTP/9.9\r\n\r\n", b"GET  /  HTTP/1.1\r\nHost: x\r\n\r\n", b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost x\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                     b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
                     b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: 1\r\n" % i for i in range(3000)) + b"\r\n"):
            self.check_refusal(self.exchange(what), what[:60])
        huge = 2 << 20
        head = (f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\n").encode()
        self.check_refusal(self.exchange(head + b"Content-Length: %d\r\n\r\n" % huge + b"a" * huge), "a body too large")
        chunk = b"%x\r\n" % 65536 + b"a" * 65536 + b"\r\n"
        self.check_refusal(self.exchange(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20), "chunks too large")

    def test_truncated_requests_are_dropped(self):
        head = (f"POST /api/v1/wallet/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.victim.token}\r\n"
                f"Content-Length: 100\r\n\r\n").encode()
        for what in (b"", b"GE", b"GET / HTTP/1.1\r\nHos", head, head + b'{"to":'):
            with self.victim.connect() as link:
                link.sendall(what)
                link.shutdown(socket.SHUT_WR)
                answer = read_all(link)
            if answer:
                self.assertEqual(split(answer)[0], 400, what)

    def test_pipelining_head_and_methods(self):
        one = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        data = self.exchange(one * 50 + b"HEAD /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n" + last)
        for _ in range(50):
            status, _, body, data = split(data)
            self.assertEqual((status, json.loads(body)["healthy"]), (200, True))
        head, _, data = data.partition(b"\r\n\r\n")
        self.assertRegex(head, rb"(?i)content-length: [1-9]")
        status, _, body, data = split(data)
        self.assertEqual((status, json.loads(body)["node_id"], data), (200, self.before["node_id"], b""))

        for method, path, allowed in (("POST", "/api/v1/status", "GET"), ("GET", "/api/v1/inference", "POST"),
                                      ("DELETE", "/api/v1/config", "PATCH"), ("BREW", "/api/v1/health", "GET"),
                                      ("PUT", "/api/v1/wallet/send", "POST")):
            answer = self.victim.request(method, path)
            self.assertEqual((answer.status, answer.code), (404, "NOT_FOUND"), (method, path, answer.body))
            self.assertIn(allowed, answer.headers["Allow"])
        for path in ("/api/v1/nothing", "/v1/chat", "/api/v1/../status", "/%00", "//", "/api/v1/status/", "/API/V1/STATUS"):
            answer = self.victim.get(path)
            self.assertEqual((answer.status, answer.code), (404, "NOT_FOUND"), path)
        self.assertEqual(self.victim.get("/api/v1/status", headers={"X-Request-Id": "mine_1-2"}).headers["X-Request-Id"], "mine_1-2")
        self.assertNotEqual(self.victim.get("/api/v1/status", headers={"X-Request-Id": "not mine"}).headers["X-Request-Id"], "not mine")

    def test_json_that_is_none(self):
        for raw in (b"", b"{", b"[]", b"null", b'"a"', b"{}{}", b"\xef\xbb\xbf{}", b'{"prompt":"a",}', b"{'prompt':'a'}",
                    b'{"prompt":"a","prompt":"b"}', b'{"a":{"b":1,"b":2},"prompt":"a"}', b'{"prompt":"a","x":NaN}',
                    b'{"prompt":"a","x":Infinity}', b'{"prompt":"a","x":1e400}', b"[" * 10000 + b"]" * 10000,
                    b'{"prompt":"a","x":' + b"[" * 40 + b"]" * 40 + b"}", b'{"prompt":"a","x":' + b'{"a":' * 10000,
                    b'{"prompt":"a","x":01}', b'{"prompt":"a","x":"\x01"}', b'{"prompt":"a"}\x00', b'{"prompt":"a" /* c */}'):
            answer = self.victim.request("POST", "/api/v1/inference", raw=raw, headers={"Content-Type": "application/json"})
            if raw == b'{"prompt":"a","x":1e400}' and answer.status == 200:
                continue  # an unknown field is ignored, and its number is well-formed
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (raw[:60], answer.body[:200]))
        deep = b'{"prompt":"a","max_tokens":1,"x":' + b"[" * 30 + b"]" * 30 + b"}"
        self.assertEqual(self.victim.request("POST", "/api/v1/inference", raw=deep).status, 200)
        for text in ("1e400", "-1e400", "1e-400", "-0", "0.1234567890123456789", "9" * 400, "1" + "0" * 4000):
            for path, body in (("/api/v1/inference", f'{{"prompt":"a","max_tokens":{text}}}'),
                               ("/api/v1/wallet/send", f'{{"to":"0x{"ab" * 20}","amount":{text}}}'),
                               ("/api/v1/wallet/stake", f'{{"amount":{text}}}')):
                answer = self.victim.request("POST", path, raw=body)
                # An amount of many digits is rounded, and there is no balance to pay it from.
                self.assertIn(answer.status, (400, 402), (path, text[:30], answer.body))
            answer = self.victim.request("PATCH", "/api/v1/config", raw=f'{{"training":{{"batch_size":{text}}}}}')
            self.assertEqual(answer.status, 400, (text[:30], answer.body))

    def test_slow_heads_are_closed_and_hold_up_nobody(self):
        links = [self.victim.connect() for _ in range(200)]
        for link in links:
            link.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        self.assertEqual(self.victim.get("/api/v1/status").status, 200)
        # One byte every second keeps no connection open beyond the ten seconds of a head.
        begin = time.monotonic()
        drip = links[0]
        drip.settimeout(1)
        closed = False
        while not closed and time.monotonic() - begin < 60:
            try:
                drip.sendall(b"a")
                closed = drip.recv(1000).startswith(b"HTTP/1.1 400") or not drip.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                closed = True
        self.assertTrue(closed)
        for link in links:
            link.close()

    def test_memory_does_not_grow_with_what_was_refused(self):
        def storm(i):
            for _ in range(10):
                self.exchange(b"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 500000\r\n\r\n" + b"[" * 500_000)
                self.exchange(b"\x00" * 30000)
                self.victim.get(f"/api/v1/{i}", headers={"Authorization": "Bearer " + "0" * 64})
        def round_of_storms():
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(storm, range(8)))
            return self.victim.memory_kb()
        # The first rounds fill caches and the allocator's arenas.
        first = max(round_of_storms() for _ in range(2))
        last = min(round_of_storms() for _ in range(3))
        self.assertLess(last, first + 20_000)


class Limits(NodeTest):
    def test_the_published_limits_and_their_headers(self):
        defaults = {f"api.rate_limits.{name}": value for name, value in
                    (("status", 100), ("inference", 60), ("wallet", 10), ("health", 600), ("auth_failures", 30))}
        node = self.node(settings={**defaults, "training.enabled": False}).start()
        for _ in range(10):
            answer = node.get("/api/v1/wallet/balance")
            self.assertEqual(answer.status, 200)
        self.assertEqual((answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]), ("10", "0"))
        self.assertTrue(0 < int(answer.headers["X-RateLimit-Reset"]) <= 60)
        for _ in range(2):
            answer = node.get("/api/v1/wallet/balance")
            self.assertEqual((answer.status, answer.code), (429, "RATE_LIMITED"))
            self.assertRegex(answer.headers["Retry-After"], r"^[1-9]\d*$")
            self.assertEqual(answer.details["retry_after"], int(answer.headers["Retry-After"]))
            self.assertEqual(answer.headers["X-RateLimit-Remaining"], "0")
        # Other classes and other identities have windows of their own.
        got = [node.get("/api/v1/network").status for _ in range(101)]
        self.assertEqual((got.count(200), got.count(429)), (100, 1))
        self.assertEqual(node.get("/api/v1/network", token=False).status, 200)
        self.assertEqual(node.get("/api/v1/health", token=False).headers["X-RateLimit-Limit"], "600")
        # Wrong tokens have a budget; the right one still passes when it is empty.
        got = [node.get("/api/v1/layers", token="f" * 64).status for _ in range(35)]
        self.assertEqual((got.count(401), got.count(429)), (30, 5), got)
        self.assertEqual(node.post("/api/v1/inference", {}).status, 400)
        self.assertEqual(node.terminate(), 0)


if __name__ == "__main__":
    main()

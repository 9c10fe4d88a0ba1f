"""Streams on a real node that are silent while they wait, and one that nobody reads."""

import json
import re
import select
import socket
import time

import support

# Large enough that a generation takes seconds, and a full batch of them a good while.
SLOW = {"model.num_layers": 6, "model.hidden_dim": 384, "model.num_heads": 6, "model.num_kv_heads": 2,
        "model.ffn_dim": 1024, "model.max_seq_len": 8192, "training.enabled": False}
LONG = {"model.max_seq_len": 8192, "training.enabled": False, "log_level": "debug"}


class Streams(support.NodeTest):
    def ask(self, node, max_tokens, link=None):
        """A raw connection that has sent a streamed request and has read nothing yet."""
        body = json.dumps({"prompt": "the ", "max_tokens": max_tokens, "temperature": 0, "logprobs": True, "stream": True})
        if link is None:
            link = socket.socket()
        link.connect(("127.0.0.1", node.port))
        self.addCleanup(link.close)
        link.sendall(f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return link

    def test_a_stream_that_waits_has_its_headers_after_5_s_and_then_pings(self):
        node = self.node(settings=SLOW).start().wait_up()
        first = self.ask(node, 1900)
        self.assertIn(b"200 OK", first.recv(65536))
        # More than a batch of 32 holds: the last ones wait until others end.
        links = [first] + [self.ask(node, 1900) for _ in range(39)]
        began, last = time.monotonic(), links[-1]
        got, head, token, ping = b"", None, None, None
        while not (ping or token) and time.monotonic() < began + 120:
            for link in select.select(links, [], [], 0.1)[0]:
                part = link.recv(1 << 20)
                if link is last:
                    got += part
            now = time.monotonic() - began
            head = head or (b"\r\n\r\n" in got and now)
            ping = ping or (b": ping\n\n" in got and now)
            token = token or (b"data: " in got and now)
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"), got[:500])
        self.assertIn(b"\r\nContent-Type: text/event-stream\r\n", got)
        # The bounds are those of a busy machine; a quick one has its token before anything is due.
        self.assertLess(head, 30)
        if not token or token > head + 30:
            self.assertTrue(ping, got[:500])
            self.assertGreater(ping, head + 5)
            self.assertIn(b"\r\n\r\n8\r\n: ping\n\n\r\n", got)
        for link in links:
            link.close()
        # All those readers have gone: the next one is served at once.
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 2}).status, 200)
        self.assertEqual(node.terminate(), 0, node.text())

    def test_who_does_not_read_is_cut_off_and_no_one_else_waits(self):
        node = self.node(settings=LONG).start().wait_up()
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.ask(node, 8000, lazy)  # half a megabyte of frames, much more than the sockets and the 256 frames hold
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 8}).status, 200)
        support.wait_for(lambda: "stream-cancelled" in node.log(), 120, "the stream to be cut off", node)
        self.assertRegex(node.log(), r"stream-cancelled id=inf_[0-9a-f]{24} gone=false")
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 8}).status, 200)
        got = b""
        lazy.settimeout(60)
        while part := lazy.recv(65536):
            got += part
        # What was sent are frames in order, and the end shows that it is none.
        indices = [int(i) for i in re.findall(rb'"index":(\d+)', got)]
        self.assertEqual(indices, list(range(len(indices))))
        self.assertNotIn(b"[DONE]", got)
        self.assertFalse(got.endswith(b"0\r\n\r\n"))
        # Those tokens are all that were made for it.
        self.assertLess(node.metrics()["inference"]["tokens_generated"], 8000)
        self.assertEqual(node.terminate(), 0, node.text())


if __name__ == "__main__":
    support.main()

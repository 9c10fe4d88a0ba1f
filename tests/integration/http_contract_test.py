"""The published HTTP contract, as a stranger's program meets it: errors, limits, access, configuration and streams."""

import concurrent.futures
import hashlib
import http.client
import json
import socket
import struct
import time
import urllib.request

import support
from contract import IDLE, Contract, Text, exact


class Envelope(Contract):
    def test_what_is_no_request_gets_the_envelope_and_an_end(self):
        node = self.node(corpus=False, settings=IDLE).start()
        bearer = f"Authorization: Bearer {node.token}\r\n".encode()
        post = b"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-1\r\n" + bearer
        for bytes_sent in (b"\0\1\r\n\r\n", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
                           b"GET /api/v1/status HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                           b"GET / HTTP/1.1\r\nA: " + b"x" * 20000 + b"\r\n\r\n",
                           post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                           post + b"Content-Length: 1048577\r\n\r\nx"):
            got = self.talk(node, bytes_sent)
            head, body = got.split(b"\r\n\r\n", 1)
            self.assertTrue(head.startswith(b"HTTP/1.1 400 "), got)
            self.assertIn(b"Connection: close", head)
            self.assertEqual(json.loads(body)["error"]["code"], "INVALID_REQUEST")
            self.assertIsInstance(json.loads(body)["error"]["details"], dict)
            if bytes_sent.startswith(post):  # its id had been read before the end
                self.assertIn(b"X-Request-Id: mine-1\r\n", head + b"\r\n")

    def test_the_access_log_has_every_request_and_no_secret(self):
        node = self.node(corpus=False, settings=IDLE).start()
        node.get("/api/v1/config?key=" + node.token, headers={"X-Request-Id": "logged-1"})
        node.post("/api/v1/inference", {"prompt": "words of a prompt", "max_tokens": 0}, headers={"X-Request-Id": "logged-2"})
        support.wait_for(lambda: "id=logged-2 " in node.log(), 5, "the log to be written", node)
        log = node.log()
        self.assertRegex(log, r"info access: request id=logged-1 peer=127\.0\.0\.1 method=GET path=/api/v1/config status=200 "
                              r"bytes=\d+ ms=\d+\.\d{3}\n")
        self.assertRegex(log, r" id=logged-2 .* method=POST path=/api/v1/inference status=400 ")
        self.assertNotIn(node.token, log)
        self.assertNotIn("words of a prompt", log)

    def test_the_access_log_can_be_turned_off(self):
        node = self.node(corpus=False, settings={**IDLE, "log.access": False}).start()
        node.get("/api/v1/status")
        node.terminate()
        self.assertNotIn("access: ", node.log())

    def test_an_ipv6_address_makes_a_url_that_works(self):
        node = self.node(corpus=False, settings={**IDLE, "http_host": "::1"}).start(ready=False)
        config = node.data_dir + "/config.json"
        def url():
            with open(config, encoding="utf-8") as f:
                return json.load(f)["url"]
        def answers():
            try:
                with urllib.request.urlopen(url() + "/api/v1/health", timeout=5) as answer:
                    return answer.status == 200
            except (OSError, ValueError):
                return False
        support.wait_for(answers, 20, "the node to listen", node)
        self.assertEqual(url(), f"http://[::1]:{node.port}")
        support.wait_for(lambda: f"url={url()} " in node.log() and url() + "/api/v1" in node.text(), 5, "the URL to be told", node)

    def test_the_root_is_a_page_of_its_own(self):
        node = self.node(corpus=False, settings=IDLE).start()
        answer = node.get("/", token=False)
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertTrue(answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-"))
        self.assertNotIn(node.token, answer.body.decode())
        self.assertEqual(node.get("/assets/x.js", token=False).code, "NOT_FOUND")

    def test_unknown_paths_and_methods_are_not_found(self):
        node = self.node(corpus=False, settings=IDLE).start()
        for method, path, allow in (("GET", "/v1/models", None), ("DELETE", "/api/v1/config", "GET, HEAD, PATCH"),
                                    ("GET", "/api/v1/wallet/send", "POST"), ("OPTIONS", "/api/v1/status", "GET, HEAD")):
            answer = node.request(method, path)
            self.assertEqual((answer.status, answer.code), (404, "NOT_FOUND"))
            self.assertEqual(set(answer.details), {"resource", "identifier"})
            self.assertEqual(answer.headers["Allow"], allow)

    def test_identities_of_requests(self):
        node = self.node(corpus=False, settings=IDLE).start()
        for sent, kept in (("a-B_9" * 12, True), ("x" * 65, False), ("a b", False), ("", False), ("ä", False)):
            got = node.get("/api/v1/status", headers={"X-Request-Id": sent.encode()}).headers["X-Request-Id"]
            self.assertEqual(got == sent, kept)
            self.assertRegex(got, r"^[A-Za-z0-9_-]{1,64}$")

    def test_head_is_get_without_a_body(self):
        node = self.node(corpus=False, settings=IDLE).start()
        for path in ("/api/v1/layers", "/metrics", "/api/v1/health", "/nothing"):
            get, head = node.get(path), node.request("HEAD", path)
            self.assertEqual((head.status, head.body), (get.status, b""))
            self.assertEqual(head.headers["Content-Type"], get.headers["Content-Type"])
            self.assertGreater(int(head.headers["Content-Length"]), 0)


class Limits(Contract):
    def test_every_response_of_a_limited_class_says_what_is_left(self):
        node = self.node(corpus=False, settings={**IDLE, "api.rate_limits.status": 3, "api.rate_limits.health": 3,
                                                 "api.rate_limits.wallet": 2, "api.rate_limits.auth_failures": 2}).start()
        left = [node.get("/api/v1/status") for _ in range(4)]
        self.assertEqual([r.status for r in left], [200, 200, 200, 429])
        self.assertEqual([r.headers["X-RateLimit-Remaining"] for r in left], ["2", "1", "0", "0"])
        for r in left:
            self.assertEqual(r.headers["X-RateLimit-Limit"], "3")
            self.assertRegex(r.headers["X-RateLimit-Reset"], r"^[0-9]+$")
        self.assertEqual(left[3].code, "RATE_LIMITED")
        self.assertEqual(int(left[3].headers["Retry-After"]), left[3].details["retry_after"])
        self.assertGreaterEqual(left[3].details["retry_after"], 1)
        # Another identity has a budget of its own, and a bad token spends none of it.
        self.assertEqual(node.get("/api/v1/status", token=False).headers["X-RateLimit-Remaining"], "2")
        for _ in range(2):
            bad = node.get("/api/v1/status", token="0" * 64)
            self.assertEqual((bad.status, bad.headers["X-RateLimit-Remaining"]), (401, "2"))
        bad = node.get("/api/v1/wallet/balance", token="0" * 64)
        self.assertEqual((bad.status, bad.code), (429, "RATE_LIMITED"))
        self.assertEqual(int(bad.headers["Retry-After"]), bad.details["retry_after"])
        self.assertEqual(node.get("/api/v1/wallet/balance").status, 200)
        # Bad requests count, too: an error of the handler is a response of the class.
        self.assertEqual(node.post("/api/v1/wallet/send", {}).headers["X-RateLimit-Remaining"], "0")
        self.assertEqual(node.post("/api/v1/wallet/send", {}).status, 429)
        health = [node.get("/api/v1/health", token="junk") for _ in range(4)]  # the wait for the start may have asked once
        self.assertEqual((health[0].status, health[3].status), (200, 429))
        self.assertEqual({r.headers["X-RateLimit-Limit"] for r in health}, {"3"})
        # Nothing is limited where the limit is 0, and nothing said.
        self.assertIsNone(node.post("/api/v1/inference", {}).headers["X-RateLimit-Limit"])


    def test_the_client_behind_a_proxy_is_believed_from_trusted_proxies_alone(self):
        for trusted, wanted in ((["127.0.0.1"], [200, 429, 200]), ([], [200, 429, 429])):
            node = self.node(f"trusts{len(trusted)}", corpus=False,
                             settings={**IDLE, "api.rate_limits.status": 1, "api.trusted_proxies": trusted}).start()
            got = [node.get("/api/v1/status", token=False, headers={"X-Forwarded-For": "203.0.113." + last}).status
                   for last in ("1", "1", "2")]
            self.assertEqual(got, wanted)
            node.kill()


class Access(Contract):
    def test_tokens_scopes_and_plain_transport(self):
        tokens = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("read", "wallet", "inference", "admin")}
        entries = ", ".join('{sha256 = "%s", scopes = ["%s"]}' % (hashlib.sha256(t.encode()).hexdigest(), name)
                            for name, t in tokens.items())
        node = self.node(corpus=False, settings=IDLE)
        config = node.directory + "/node.toml"
        with open(config, "w", encoding="utf-8") as out:
            out.write(f'http_host = "0.0.0.0"\n[api]\ntrusted_proxies = ["127.0.0.1"]\ntokens = [{entries}]\n')
        node.start("--config", config)
        for path in ("peers", "layers", "proofs", "config", "wallet/balance", "stake/info", "rewards"):
            self.assertEqual(node.get("/api/v1/" + path, token=False).status, 401)
            answer = node.get("/api/v1/" + path, token=tokens["wallet"])
            self.assertEqual((answer.status, answer.code, answer.details["scope"]), (403, "FORBIDDEN", "read"))
            self.assertEqual(node.get("/api/v1/" + path, token=tokens["read"]).status, 200)
        answer = node.get("/api/v1/peers", token=False)
        self.assertEqual((answer.code, answer.details, answer.headers["WWW-Authenticate"]), ("UNAUTHORIZED", {}, "Bearer"))
        self.assertEqual(node.get("/api/v1/status", token="f" * 64).status, 401)
        self.assertEqual(node.get("/api/v1/health", token="f" * 64).status, 200)
        for token in (tokens["wallet"], True):
            answer = node.post("/api/v1/wallet/send", {}, token=token)
            self.assertEqual((answer.status, answer.details["reason"]), (403, "insecure_transport"))
            answer = node.post("/api/v1/wallet/send", {}, token=token, headers={"X-Forwarded-Proto": "https"})
            self.assertEqual((answer.status, answer.details["field"]), (400, "to"))
        answer = node.request("PATCH", "/api/v1/config", {}, token=tokens["admin"], headers={"X-Forwarded-Proto": "http"})
        self.assertEqual((answer.status, answer.details["reason"]), (403, "insecure_transport"))

    def test_cors_only_for_whom_it_is_configured(self):
        node = self.node(corpus=False, settings={**IDLE, "api.cors_origins": ["https://here.example"]}).start()
        allowed = node.get("/api/v1/status", headers={"Origin": "https://here.example"})
        self.assertEqual(allowed.headers["Access-Control-Allow-Origin"], "https://here.example")
        for origin in ("https://there.example", "null", "https://here.example.evil"):
            self.assertIsNone(node.get("/api/v1/status", headers={"Origin": origin}).headers["Access-Control-Allow-Origin"])
        asked = {"Origin": "https://here.example", "Access-Control-Request-Method": "POST"}
        answer = node.request("OPTIONS", "/api/v1/inference", token=False, headers=asked)
        self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Methods"]), (204, "POST"))
        self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "https://here.example")
        self.assertIn("Authorization", answer.headers["Access-Control-Allow-Headers"])


class Configuration(Contract):
    def test_a_patch_is_all_or_nothing_and_outlives_a_restart(self):
        node = self.node().start()
        patch = lambda body: node.request("PATCH", "/api/v1/config", body)
        self.assertEqual(patch({}).json(), {"success": True, "updated": [], "restart_required": False})
        before = node.get("/api/v1/config").json()
        for body, status, field in (({"training": {"batch_size": 8, "learning_rate": 2}}, 400, "training.learning_rate"),
                                    ({"training": {"batch_size": 0}}, 400, "training.batch_size"),
                                    ({"training": {"enabled": 1}}, 400, "training.enabled"),
                                    ({"training": {"batch_size": None}}, 400, "training.batch_size"),
                                    ({"training": 1}, 400, "training"), ({"what": 1}, 400, "what"),
                                    ({"training": {"what": 1}}, 400, "training.what"),
                                    ({"training.batch_size": 4}, 400, "training.batch_size"),
                                    ({"resources": {"cpu_threads": 100000}}, 400, "resources.cpu_threads"),
                                    ({"resources": {"max_memory_gb": 0.1}}, 400, "resources.max_memory_gb"),
                                    ({"resources": {"max_storage_mb": 9}}, 400, "resources.max_storage_mb"),
                                    ({"node_id": "x"}, 403, "node_id"), ({"port": 1}, 403, "port"),
                                    ({"grpc_port": 1}, 403, "grpc_port"), ({"tracker_url": ""}, 403, "tracker_url")):
            answer = patch(body)
            self.assertEqual(answer.status, status, (body, answer.body))
            self.assertEqual(answer.details["field"], field, (body, answer.body))
        self.assertEqual(node.get("/api/v1/config").json(), before)
        answer = patch({"training": {"learning_rate": 1e-3, "diloco_steps": 7.0, "batch_size": 2},
                        "resources": {"max_storage_mb": 50, "cpu_threads": 1}})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual((answer.json()["success"], answer.json()["restart_required"]), (True, False))
        self.assertEqual(sorted(answer.json()["updated"]),
                         ["resources.cpu_threads", "resources.max_storage_mb", "training.batch_size", "training.diloco_steps",
                          "training.learning_rate"])
        answer = patch({"resources": {"max_memory_mb": 512}})
        self.assertEqual((answer.status, answer.json()["restart_required"]), (200, True), answer.body)
        wanted = {"training": {"enabled": True, "batch_size": 2, "learning_rate": 0.001, "diloco_steps": 7},
                  "resources": {"max_memory_gb": 0.5, "cpu_threads": 1, "max_storage_mb": 50}}
        now = node.get("/api/v1/config").json()
        self.assertEqual({"training": now["training"], "resources": now["resources"]}, wanted)
        node.kill()
        for key in ("training.learning_rate", "training.diloco_steps", "training.batch_size"):
            del node.settings[key]  # flags would win
        node.start()
        now = node.get("/api/v1/config").json()
        self.assertEqual({"training": now["training"], "resources": now["resources"]}, wanted)


class Streams(Contract):
    def test_frames(self):
        node = self.node().start()
        node.wait_status(("running", "training"))
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
        body = json.dumps({"prompt": "the word", "max_tokens": 20, "stream": True, "logprobs": True, "seed": 1, "stop": []})
        connection.request("POST", "/api/v1/inference", body, {"Authorization": "Bearer " + node.token,
                                                               "Content-Type": "application/json"})
        answer = connection.getresponse()
        self.assertEqual(answer.headers["Content-Type"], "text/event-stream")
        self.assertEqual(answer.headers["Cache-Control"], "no-store")
        self.assertEqual(answer.headers["X-Accel-Buffering"], "no")
        self.assertEqual(answer.headers["Transfer-Encoding"], "chunked")
        text = answer.read().decode()
        self.assertTrue(text.endswith("\n\n"))
        frames = text.split("\n\n")[:-1]
        for frame in frames:
            self.assertTrue(frame.startswith("data: {") and "\n" not in frame, frame)
        frames = [exact(f[6:]) for f in frames]
        self.assertEqual([f["index"] for f in frames[:-1]], [("int", i) for i in range(len(frames) - 1)])
        for f in frames[:-1]:
            self.assertEqual(list(f), ["token", "index", "logprob"])
            self.assertIsInstance(f["logprob"], Text)
        last = frames[-1]
        self.assertEqual(last["token"], "[DONE]")
        self.assertIn(last["finish_reason"], ("stop", "length"))
        self.assertRegex(last["id"], "^inf_[0-9a-f]{24}$")
        self.assertEqual(set(last["usage"]), {"prompt_tokens", "completion_tokens", "total_tokens"})
        self.assertEqual(last["cost"], {"amount": "0.0", "currency": "NEURO"})
        self.assertEqual(set(last["timing"]), {"queue_ms", "inference_ms", "total_ms"})
        # The connection is good for another request.
        connection.request("GET", "/api/v1/health")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()

    def test_a_reader_that_goes_frees_the_generation_and_one_that_comes_back_gets_it(self):
        node = self.node().start()
        node.wait_status(("running", "training"))
        connections = 30
        for at in range(connections):  # at every stage of a stream
            payload = json.dumps({"prompt": "the word", "max_tokens": 240, "stream": True}).encode()
            s = socket.create_connection(("127.0.0.1", node.port), 5)
            s.sendall(f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                      f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
            if at % 3:
                s.recv(100 * at)
            if at % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "x", "max_tokens": 3}).status, 200)
        total = lambda metrics: metrics["inference"]["requests_total"]
        asked = node.wait_rest(total)
        # Without a stream the generation goes on, and the same request again gets it.
        payload = json.dumps({"prompt": "the heart", "max_tokens": 240}).encode()
        head = (f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n").encode()
        s = socket.create_connection(("127.0.0.1", node.port), 5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(head + payload)
        time.sleep(0.03)
        s.close()
        first = node.request("POST", "/api/v1/inference", raw=payload).json()
        self.assertEqual(node.wait_rest(total), asked + 1)
        # Once delivered it is over: asked again, another one is made.
        self.assertNotEqual(node.request("POST", "/api/v1/inference", raw=payload).json()["id"], first["id"])
        # Clients that are all there get one each.
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            ids = list(pool.map(lambda _: node.request("POST", "/api/v1/inference", raw=payload).json()["id"], range(6)))
        self.assertEqual(len(set(ids)), 6)

    def test_a_stream_that_cannot_begin_is_an_ordinary_error(self):
        node = self.node(corpus=False, settings={**IDLE, "inference.charge_self": True}).start()
        node.wait_status(("running", "training"))
        answer = node.post("/api/v1/inference", {"prompt": "x", "max_tokens": 5, "stream": True})
        self.assertEqual((answer.status, answer.code), (402, "INSUFFICIENT_BALANCE"))
        self.assertEqual(set(answer.details), {"required", "available", "balance"})
        self.assertEqual(exact(answer.body)["error"]["details"]["required"], "0.0007")


if __name__ == "__main__":
    support.main()

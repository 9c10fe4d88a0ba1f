"""The published HTTP contract, as a stranger's program meets it: names, types and texts of what comes over the wire."""

import concurrent.futures
import hashlib
import http.client
import json
import re
import socket
import struct
import time

import support

# Rewards large and at once, so that there is something to send and to stake.
RICH = {"economics.training_per_batch": "1000", "economics.max_per_proof": "1000000",
        "economics.max_per_wallet_day": "100000000", "economics.maturity_s": 1, "checkpoint.every_steps": 20}
IDLE = {"training.enabled": False}
STRANGER = "0x" + "ab" * 20
AMOUNT = r"-?(0|[1-9][0-9]*)\.([0-9]*[1-9]|0)"
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


class Text(str):
    """A JSON number as it was written."""


def exact(body):
    """JSON with numbers as their text, so that 1 and 1.0 differ."""
    return json.loads(body, parse_float=Text, parse_int=lambda t: ("int", int(t)))


class Contract(support.NodeTest):
    def talk(self, node, data, seconds=5, half=False):
        """Raw bytes to the node, and what comes back until it closes or falls silent for a moment."""
        with socket.create_connection(("127.0.0.1", node.port), 5) as s:
            s.settimeout(seconds)
            s.sendall(data)
            if half:
                s.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while part := s.recv(65536):
                    got += part
            except socket.timeout:
                pass
            return got

    def rich(self, settings=None, available=5000):
        node = self.node(settings={**RICH, **(settings or {})}).start()
        support.wait_for(lambda: node.get("/api/v1/wallet/balance").json()["balances"]["total"] >= available, 60, "rewards", node)
        # From now on the balance moves only by what the test does; a start is one of the moments at which rewards mature.
        answer = node.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
        self.assertEqual(answer.status, 200, answer.body)
        node.terminate()
        time.sleep(1.1)
        node.start()
        support.wait_for(lambda: self.available(node) >= available, 20, "maturity", node)
        node.wait_status("running")
        return node

    @staticmethod
    def available(node):
        return node.get("/api/v1/wallet/balance").json()["balances"]["available"]

    def is_amount(self, value):
        self.assertIsInstance(value, Text)
        self.assertRegex(value, f"^{AMOUNT}$")


class Envelope(Contract):
    def test_what_is_no_request_gets_the_envelope_and_an_end(self):
        node = self.node(corpus=False, settings=IDLE).start()
        bearer = f"Authorization: Bearer {node.token}\r\n".encode()
        post = b"POST /api/v1/inference HTTP/1.1\r\nX-Request-Id: mine-1\r\n" + bearer
        for bytes_sent in (b"\0\1\r\n\r\n", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
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


class Pages(Contract):
    def check(self, body, shape, where=""):
        """Names in this order at least, and types: int, float, bool, str, "amount", "time", "date", list, dict, tuple of choices."""
        if isinstance(shape, tuple):
            for one in shape:
                try:
                    return self.check(body, one, where)
                except AssertionError:
                    pass
            self.fail(f"{where}: {body!r} is none of {shape}")
        if isinstance(shape, dict):
            self.assertIsInstance(body, dict, where)
            self.assertEqual(list(body), list(shape), where)
            for name, inner in shape.items():
                self.check(body[name], inner, f"{where}.{name}")
        elif isinstance(shape, list):
            self.assertIsInstance(body, list, where)
            for at, item in enumerate(body):
                self.check(item, shape[0], f"{where}[{at}]")
        elif shape is int:
            self.assertTrue(isinstance(body, tuple) and body[0] == "int", f"{where}: {body!r}")
        elif shape is float:
            self.assertIsInstance(body, Text, where)
        elif shape is None:
            self.assertIsNone(body, where)
        elif shape in (bool, str):
            self.assertIs(type(body), shape, where)
        else:
            pattern = {"amount": AMOUNT, "time": TIMESTAMP, "date": DATE}.get(shape, shape)
            self.assertIsInstance(body, Text if shape == "amount" else str, where)
            self.assertRegex(body, f"^(?:{pattern})$", where)
        return None

    BALANCES = {"available": "amount", "staked": "amount", "pending": "amount", "total": "amount"}
    STAKE = {"amount": "amount", "duration_days": int, "start_date": "date", "unlock_date": "date", "multiplier": float}
    GETS = {
        "status": {"node_id": "[0-9a-f]{32}", "version": r"\d+\.\d+\.\d+.*", "uptime_seconds": int,
                   "status": "starting|syncing|running|training", "role": "driver", "roles": [str], "layers": [int],
                   "peer_count": int, "has_embedding": bool, "has_lm_head": bool,
                   "training": {"enabled": bool, "epoch": int, "step": int, "loss": float},
                   "resources": {"gpu_memory_used": int, "gpu_memory_total": int, "cpu_percent": float, "ram_used": int,
                                 "ram_total": int},
                   "model": {"architecture": str, "version": int, "hash": "[0-9a-f]{64}", "trained": bool, "tokens_trained": int}},
        "metrics": {"timestamp": "time",
                    "inference": {"requests_total": int, "requests_per_minute": float, "avg_latency_ms": float,
                                  "p99_latency_ms": float, "tokens_generated": int},
                    "training": {"steps_total": int, "steps_per_hour": float, "gradients_submitted": int, "gradients_accepted": int},
                    "network": {"bytes_sent": int, "bytes_received": int, "active_connections": int, "rpc_calls": int,
                                "peer_count": int},
                    "rewards": {"earned_today": "amount", "earned_total": "amount", "pending": "amount"}},
        "health": {"healthy": bool, "checks": {"gpu": "ok|cpu_only|degraded|error", "network": "ok|degraded|error",
                                               "storage": "ok|degraded|error", "peers": "degraded",
                                               "model": "ok|degraded|error"}},
        "network": {"nodes": {"total": int, "drivers": int, "workers": int, "validators": int},
                    "architecture": {"layers": int, "hidden_dim": int, "parameters": r"\d+(\.\d)?[KMB]?", "parameter_count": int},
                    "capacity": {"total_memory_gb": float, "used_memory_gb": float},
                    "training": {"epoch": int, "global_step": int, "loss": float}},
        "peers": {"peers": [str], "total": int},
        "layers": {"layers": [{"index": int, "type": "transformer|embedding|lm_head", "memory_mb": int,
                               "status": "active|loading|error"}], "total_layers": int, "my_layer_count": int},
        "proofs": {"proofs": [str], "stats": {"total_submitted": int, "total_verified": int, "total_reward": "amount"},
                   "limit": int, "offset": int, "total": int},
        "config": {"node_id": "[0-9a-f]{32}", "port": int, "grpc_port": int, "tracker_url": "",
                   "training": {"enabled": bool, "batch_size": int, "learning_rate": float, "diloco_steps": int},
                   "resources": {"max_memory_gb": (float, None), "cpu_threads": (int, None), "max_storage_mb": int}},
        "wallet/balance": {"address": "0x[0-9a-f]{40}", "balances": BALANCES, "staking": (None, STAKE)},
        "wallet/transactions": {"transactions": [{"id": "[0-9a-f]{64}", "type": "send|receive|reward|stake|unstake|inference|slash",
                                                  "from": "(0x[0-9a-f]{40})?", "to": "(0x[0-9a-f]{40})?", "amount": "amount",
                                                  "fee": "amount", "status": "pending|confirmed|failed", "timestamp": "time",
                                                  "memo": (str, None),
                                                  "details": {"type": "training", "matures_at": "time", "steps": str}}],
                                "total": int, "limit": int, "offset": int},
        "stake/info": {"stake": "amount", "stake_multiplier": float, "duration_days": int, "start_date": ("date", None),
                       "unlock_date": ("date", None), "pending_unstake": "amount", "amount": "amount", "multiplier": float,
                       "days_remaining": int, "pending_available_date": ("date", None),
                       "validator": {"eligible": bool, "required_stake": "amount"}},
        "wallet/rewards": {"total": "amount", "by_day": [{"date": "date", "amount": "amount", "proofs": int}],
                           "by_type": {t: "amount" for t in ("uptime", "inference", "training", "data", "validation")}},
        "wallet/reward-rate": {"base_rate": "amount", "role": "driver|worker|validator", "role_multiplier": float,
                               "stake_multiplier": float, "reputation_multiplier": float, "effective_rate": "amount",
                               "estimated_hourly": "amount", "estimated_daily": "amount"},
        "training/global": {"global_avg_loss": (float, None), "global_min_loss": (float, None), "hash_agreement_rate": float,
                            "total_nodes_training": int, "successful_syncs": int, "failed_syncs": int, "sync_success_rate": float,
                            "global_steps": int, "global_tokens": int, "data_shards_covered": [int], "is_converging": bool,
                            "training_verified": bool,
                            "loss_trend": "insufficient_data|improving_strongly|improving|stable|degrading_slightly|degrading",
                            "local": {"node_id": "[0-9a-f]{32}", "training_rounds": int, "current_loss": (float, None),
                                      "is_training": bool, "model_hash": "[0-9a-f]{64}"},
                            "diloco": {"enabled": bool, "inner_step_count": int, "inner_steps_total": int, "progress": float,
                                       "outer_step_count": int}},
        "training/verify": ({"is_working": bool, "reason": str,
                             "metrics": {"loss_trend": str, "hash_agreement": r"\d+\.\d%", "global_loss": float}, "state": "working"},
                            {"is_working": bool, "reason": str, "action": str,
                             "state": "disabled|insufficient_data|diverged|unverified"}),
    }

    def test_fields_their_order_and_their_types(self):
        node = self.node(settings=RICH).start()
        # From the first moment on, ...
        for path in self.GETS:
            self.assertIn(node.get("/api/v1/" + path).status, (200, 500) if "wallet" in path or "stake" in path else (200,), path)
        node.wait_step(60)
        time.sleep(1.2)  # one publication of the node's state
        # ... and once there is something to tell.
        for path, shape in self.GETS.items():
            answer = node.get("/api/v1/" + path)
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "application/json"), path)
            self.check(exact(answer.body), shape, path)
        for alias, path in (("/api/training/global", "training/global"), ("/api/training/verify", "training/verify"),
                            ("/api/v1/rewards", "wallet/rewards"), ("/api/v1/wallet/stake", "stake/info")):
            self.check(exact(node.get(alias).body), self.GETS[path], alias)

        layers = node.get("/api/v1/layers").json()
        listed = [(x["type"], x["index"]) for x in layers["layers"]]
        self.assertIn(("embedding", 0), listed)
        self.assertIn(("lm_head", layers["total_layers"]), listed)
        self.assertEqual([i for t, i in listed if t == "transformer"], [0, 1])
        rewards = node.get("/api/v1/wallet/rewards").json()["by_day"]
        self.assertEqual(len(rewards), 31)
        self.assertEqual([d["date"] for d in rewards], sorted({d["date"] for d in rewards}))
        self.assertNotIn(node.token, node.get("/api/v1/config").body.decode())

    def test_prometheus_text_is_valid(self):
        node = self.node().start()
        node.wait_step(20)
        answer = node.get("/metrics", headers={"Accept": "application/json"})
        self.assertTrue(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        types, helps, samples = {}, set(), {}
        text = answer.body.decode()
        self.assertTrue(text.endswith("\n"))
        for line in text.splitlines():
            if m := re.fullmatch(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)", line):
                self.assertNotIn(m[1], helps)
                helps.add(m[1])
            elif m := re.fullmatch(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary)", line):
                self.assertNotIn(m[1], types)
                types[m[1]] = m[2]
            else:
                m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? ([-+]?[0-9.eE+-]+|NaN|[+-]Inf)', line)
                self.assertTrue(m, line)
                self.assertIn(m[1], types, "a sample before its type")
                self.assertNotIn(m[1], samples)
                samples[m[1]] = float(m[3])
        self.assertEqual(set(samples), set(types))
        self.assertEqual(helps, set(types))
        for name in samples:
            self.assertTrue(name.startswith("neuroshard_"))
            if name.endswith("_total"):
                self.assertEqual(types[name], "counter", name)
        for group, fields in self.GETS["metrics"].items():
            if isinstance(fields, dict):
                for field in fields:
                    self.assertIn(f"neuroshard_{group}_{field}", samples)
        answer = node.get("/api/v1/metrics", headers={"Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"})
        self.assertIn(b"# TYPE ", answer.body)

    def test_lists_are_paged_and_filtered(self):
        node = self.node(settings=RICH).start()
        node.wait_step(160)
        node.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
        get = lambda query: node.get("/api/v1/wallet/transactions?" + query).json()
        support.wait_for(lambda: get("")["total"] == (time.sleep(0.5) or get("")["total"]), 10, "rest")
        everything = get("limit=100")
        self.assertGreater(everything["total"], 4)
        ids = [t["id"] for t in everything["transactions"]]
        self.assertEqual([t["id"] for t in get("limit=2&offset=2")["transactions"]], ids[2:4])
        self.assertEqual(get("limit=2&offset=2")["total"], everything["total"])
        self.assertEqual(get("offset=9223372036854775807")["transactions"], [])
        stamps = [t["timestamp"] for t in everything["transactions"]]
        self.assertEqual(stamps, sorted(stamps, reverse=True))
        today = stamps[0][:10]
        self.assertEqual(get(f"start_date={today}&end_date={today}")["total"], everything["total"])
        self.assertEqual(get("end_date=2020-01-01")["total"], 0)
        self.assertEqual(get("type=send")["total"], 0)
        for query, field in (("limit=0", "limit"), ("limit=101", "limit"), ("offset=-1", "offset"), ("type=x", "type"),
                             ("start_date=2026-02-30", "start_date"), ("limit=9e99", "limit"), ("limit=1.5", "limit")):
            answer = node.get("/api/v1/wallet/transactions?" + query)
            self.assertEqual((answer.status, answer.details["field"]), (400, field), query)
        self.assertEqual(node.get("/api/v1/wallet/rewards?start_date=2020-01-01").status, 400)


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
            s.sendall(f"POST /api/v1/inference HTTP/1.1\r\nAuthorization: Bearer {node.token}\r\n"
                      f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
            if at % 3:
                s.recv(100 * at)
            if at % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "x", "max_tokens": 3}).status, 200)
        support.wait_for(lambda: node.get("/api/v1/metrics").json()["inference"]["requests_total"] > 0, 10, "the count")
        total = lambda: node.get("/api/v1/metrics").json()["inference"]["requests_total"]
        support.wait_for(lambda: total() == (time.sleep(1.2) or total()), 20, "rest")
        asked = total()
        # Without a stream the generation goes on, and the same request again gets it.
        payload = json.dumps({"prompt": "the heart", "max_tokens": 240}).encode()
        head = (f"POST /api/v1/inference HTTP/1.1\r\nAuthorization: Bearer {node.token}\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n").encode()
        s = socket.create_connection(("127.0.0.1", node.port), 5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(head + payload)
        time.sleep(0.03)
        s.close()
        first = node.request("POST", "/api/v1/inference", raw=payload).json()
        time.sleep(1.5)
        self.assertEqual(total(), asked + 1)
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


class Money(Contract):
    def test_sending(self):
        node = self.rich()
        before = exact(node.get("/api/v1/wallet/balance").body)["balances"]["available"]
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER.upper().replace("0X", "0x"), "amount": 250, "memo": None})
        self.assertEqual(answer.status, 200, answer.body)
        sent = exact(answer.body)
        self.assertEqual(list(sent), ["transaction_id", "from", "to", "amount", "fee", "memo", "status", "timestamp"])
        self.assertRegex(sent["transaction_id"], "^[0-9a-f]{64}$")
        self.assertEqual((sent["to"], sent["amount"], sent["fee"], sent["memo"], sent["status"]),
                         (STRANGER, "250.0", "0.25", "", "confirmed"))
        self.assertRegex(sent["timestamp"], f"^{TIMESTAMP}$")
        after = exact(node.get("/api/v1/wallet/balance").body)["balances"]["available"]
        self.assertAlmostEqual(float(before) - float(after), 250.25, 9)
        listed = exact(node.get("/api/v1/wallet/transactions?type=send").body)["transactions"][0]
        self.assertEqual((listed["id"], listed["amount"], listed["fee"], listed["memo"]), (sent["transaction_id"], "-250.0", "0.25", None))

        def refused(raw, field="amount"):
            answer = node.request("POST", "/api/v1/wallet/send", raw=('{"to":"%s","amount":%s}' % (STRANGER, raw)).encode())
            self.assertEqual((answer.status, answer.code, answer.details["field"]), (400, "INVALID_REQUEST", field), raw)
        for raw in ("0", "-1", "-0", '"-1"', '"1.0000000000000000001"', "1e-30", "1e41", '""', '"1 "', '"0x1"', "true", "null", "[]",
                    "1" * 65, '"1,5"', '"+1"', '".5"', '"1e41"'):
            refused(raw)
        own = node.get("/api/v1/wallet/balance").json()["address"]
        for to in (own, "0x" + "0" * 40, "0x12", STRANGER[2:], "", "0x" + "g" * 40):
            answer = node.post("/api/v1/wallet/send", {"to": to, "amount": 1})
            self.assertEqual((answer.status, answer.details["field"]), (400, "to"), to)
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 1, "memo": "x" * 257})
        self.assertEqual((answer.status, answer.details["field"]), (400, "memo"))
        answer = node.request("POST", "/api/v1/wallet/send", raw=b'{"to":"%s","amount":"1e+16"}' % STRANGER.encode())
        self.assertEqual((answer.status, answer.code), (402, "INSUFFICIENT_BALANCE"))
        details = exact(answer.body)["error"]["details"]
        self.assertEqual(details, {"required": "10010000000000000.0", "available": after, "balance": after})
        for raw, printed in (("1e-05", "0.00001"), ("0.1", "0.1"), ('"0.000000000000000001"', "0.000000000000000001"),
                             ("0.10000000000000000050001", "0.100000000000000001")):
            answer = node.request("POST", "/api/v1/wallet/send", raw=('{"to":"%s","amount":%s}' % (STRANGER, raw)).encode())
            self.assertEqual((answer.status, exact(answer.body).get("amount")), (200, printed), answer.body)

    def test_staking(self):
        node = self.rich(available=6000)
        post = lambda path, body: node.post("/api/v1/wallet/" + path, body)

        def refused(path, body, field, reason=None):
            answer = post(path, body)
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (path, body, answer.body))
            if field:
                self.assertEqual(answer.details["field"], field, (path, body, answer.body))
            if reason:
                self.assertEqual(answer.details["reason"], reason, answer.body)
            return answer
        refused("stake/add", {"amount": 5}, None)
        refused("stake/extend", {"additional_days": 5}, None)
        refused("unstake", {"amount": 5}, None)
        refused("unstake", {}, None)
        refused("stake", {"amount": 999}, "amount")
        refused("stake", {"amount": 1000, "duration_days": 6}, "duration_days")
        refused("stake", {"amount": 1000, "duration_days": 366}, "duration_days")
        refused("stake", {"amount": 1000, "duration_days": 7.5}, "duration_days")
        refused("stake", {"amount": 10000001}, "amount")
        answer = post("stake", {"amount": 1000})
        self.assertEqual(answer.status, 200, answer.body)
        body = exact(answer.body)
        self.assertEqual(list(body), ["success", "stake", "new_balance"])
        self.assertEqual(list(body["stake"]), ["amount", "duration_days", "start_date", "unlock_date", "multiplier"])
        self.assertEqual((body["stake"]["amount"], body["stake"]["duration_days"], body["stake"]["multiplier"]),
                         ("1000.0", ("int", 30), "1.1"))
        self.assertEqual(set(body["new_balance"]), {"available", "staked"})
        answer = post("stake/add", {"amount": "1000"})
        self.assertEqual(exact(answer.body)["stake"]["multiplier"], "1.158496")
        answer = post("stake/extend", {"additional_days": 10})
        self.assertEqual(answer.json()["stake"]["duration_days"], 40)
        refused("stake/extend", {"additional_days": 326}, "additional_days")
        refused("stake/extend", {"additional_days": 0}, "additional_days")
        locked = refused("unstake", {"amount": 1000}, None, "stake_locked")
        self.assertRegex(locked.details["unlock_date"], f"^{DATE}$")
        refused("unstake", {"amount": 2001}, None, "exceeds_stake")
        refused("unstake", {"amount": 0}, "amount")
        info = exact(node.get("/api/v1/stake/info").body)
        self.assertEqual((info["stake"], info["amount"], info["stake_multiplier"], info["days_remaining"]),
                         ("2000.0", "2000.0", "1.158496", ("int", 40)))
        staking = exact(node.get("/api/v1/wallet/balance").body)["staking"]
        self.assertEqual((staking["amount"], staking["unlock_date"]), ("2000.0", info["unlock_date"]))

    def test_equal_requests_one_after_the_other_are_all_executed(self):
        node = self.rich({"threads.http": 2})  # so that a close and the next request are seen by different threads
        body = {"to": STRANGER, "amount": 1}
        # Each over a connection of its own, which is closed in order and at once.
        seen = [node.post("/api/v1/wallet/send", body).json()["transaction_id"] for _ in range(300)]
        self.assertEqual(len(set(seen)), 300)
        # Over one connection, as a session of the SDK does.
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
        for _ in range(20):
            connection.request("POST", "/api/v1/wallet/send", json.dumps(body), {"Authorization": "Bearer " + node.token})
            seen.append(json.loads(connection.getresponse().read())["transaction_id"])
        connection.close()
        self.assertEqual(len(set(seen)), 320)

    def test_a_response_that_was_lost_is_given_again_even_after_a_crash(self):
        node = self.rich()
        payload = json.dumps({"to": STRANGER, "amount": 3}).encode()
        head = (f"POST /api/v1/wallet/send HTTP/1.1\r\nAuthorization: Bearer {node.token}\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n").encode()
        before = node.get("/api/v1/wallet/transactions?type=send").json()["total"]
        s = socket.create_connection(("127.0.0.1", node.port), 5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(head + payload)
        support.wait_for(lambda: node.get("/api/v1/wallet/transactions?type=send").json()["total"] == before + 1, 10, "the transfer")
        s.close()  # a reset: the response has reached nobody
        time.sleep(0.2)
        node.kill()
        node.start()
        lost = node.get("/api/v1/wallet/transactions?type=send").json()
        self.assertEqual(lost["total"], before + 1)
        answer = node.request("POST", "/api/v1/wallet/send", raw=payload)
        self.assertEqual((answer.status, answer.json()["transaction_id"]), (200, lost["transactions"][0]["id"]), answer.body)
        time.sleep(0.5)
        answer = node.request("POST", "/api/v1/wallet/send", raw=payload)
        self.assertNotEqual(answer.json()["transaction_id"], lost["transactions"][0]["id"])

    def test_idempotency_keys(self):
        node = self.rich()
        key = {"Idempotency-Key": "order 17"}
        body = {"to": STRANGER, "amount": 1}
        bad = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 1e12}, headers=key)
        self.assertEqual(bad.status, 402)  # is not stored
        first = node.post("/api/v1/wallet/send", body, headers=key)
        self.assertEqual(first.status, 200, first.body)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            again = list(pool.map(lambda _: node.post("/api/v1/wallet/send", body, headers=key), range(16)))
        self.assertEqual({r.body for r in again}, {first.body})
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 2}, headers=key)
        self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"))
        for wrong in ("", "x" * 129, "a\tb"):
            self.assertEqual(node.post("/api/v1/wallet/send", body, headers={"Idempotency-Key": wrong}).status, 400, repr(wrong))
        text = {"prompt": "the", "max_tokens": 4}
        one = node.post("/api/v1/inference", text, headers=key)
        self.assertEqual(one.status, 200, one.body)
        self.assertEqual(node.post("/api/v1/inference", text, headers=key).body, one.body)
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "a", "max_tokens": 4}, headers=key).status, 400)
        node.kill()
        node.start()
        self.assertEqual(node.post("/api/v1/wallet/send", body, headers=key).body, first.body)
        self.assertEqual(node.post("/api/v1/inference", text, headers=key).body, one.body)


if __name__ == "__main__":
    support.main()

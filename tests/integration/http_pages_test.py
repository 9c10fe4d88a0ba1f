"""The published HTTP contract: names, order and types of the fields of every page that is read."""

import re

import support
from contract import AMOUNT, DATE, RICH, STRANGER, TIMESTAMP, Contract, Text, exact


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
        "proofs": {"proofs": [{"id": "[0-9a-f]{64}", "type": "training|uptime", "layer": int, "timestamp": "time", "verified": bool,
                               "reward": "amount"}], "stats": {"total_submitted": int, "total_verified": int, "total_reward": "amount"},
                   "limit": int, "offset": int, "total": int},
        "config": {"node_id": "[0-9a-f]{32}", "port": int, "grpc_port": int, "tracker_url": "",
                   "training": {"enabled": bool, "batch_size": int, "learning_rate": float, "diloco_steps": int},
                   "resources": {"max_memory_gb": (float, None), "cpu_threads": (int, None), "max_storage_mb": int}},
        "wallet/balance": {"address": "0x[0-9a-f]{40}", "balances": BALANCES, "staking": (None, STAKE)},
        "wallet/transactions": {"transactions": [{"id": "[0-9a-f]{64}", "type": "send|receive|reward|stake|unstake|inference|slash",
                                                  "from": "(0x[0-9a-f]{40})?", "to": "(0x[0-9a-f]{40})?", "amount": "amount",
                                                  "fee": "amount", "status": "pending|confirmed|failed", "timestamp": "time",
                                                  "memo": (str, None),
                                                  "details": {"type": "training", "proof_id": "[0-9a-f]{64}", "matures_at": "time", "steps": str}}],
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
        support.wait_for(lambda: node.get("/api/v1/proofs").json()["total"] > 0, 30, "a proof", node)
        for _ in range(2):  # what is published now was asked for after the proof
            seen = node.metrics()["timestamp"]
            support.wait_for(lambda before=seen: node.metrics()["timestamp"] != before, 10, "a publication", node)
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
        node = self.rich()
        get = lambda query: node.get("/api/v1/wallet/transactions?" + query).json()
        for amount in ("1", "2", "3", "4"):
            self.assertEqual(node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": amount}).status, 200)
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
        self.assertEqual(get("type=send")["total"], 4)
        self.assertEqual(get("type=stake")["total"], 0)
        proofs = lambda query: node.get("/api/v1/proofs?" + query).json()
        told = proofs("")
        self.assertEqual(told["total"], len(told["proofs"]))
        self.assertEqual(told["stats"]["total_verified"], told["total"])
        self.assertEqual(proofs("type=training")["total"], told["total"])
        self.assertEqual(proofs("offset=1000")["proofs"], [])
        for query, field in (("limit=0", "limit"), ("limit=101", "limit"), ("offset=-1", "offset"), ("type=x", "type"),
                             ("start_date=2026-02-30", "start_date"), ("limit=9e99", "limit"), ("limit=1.5", "limit")):
            answer = node.get("/api/v1/wallet/transactions?" + query)
            self.assertEqual((answer.status, answer.details["field"]), (400, field), query)
        self.assertEqual(node.get("/api/v1/wallet/rewards?start_date=2020-01-01").status, 400)


if __name__ == "__main__":
    support.main()

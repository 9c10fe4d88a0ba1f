"""What a training node does and tells: the loss falls, every page is true, settings take effect while it runs."""

import json
import os
import re
import unittest

import support
from support import NodeTest, wait_for


class Typed(NodeTest):
    """Checks values by a table of their types."""

    def check_types(self, value, types, where=""):
        if isinstance(types, dict):
            self.assertIsInstance(value, dict, where)
            for name, kind in types.items():
                self.assertIn(name, value, where)
                self.check_types(value[name], kind, f"{where}.{name}")
        elif isinstance(types, list):
            self.assertIsInstance(value, list, where)
            for entry in value:
                self.check_types(entry, types[0], where + "[]")
        elif types is float:
            self.assertIsInstance(value, (int, float), where)
            self.assertNotIsInstance(value, bool, where)
        elif types is int:
            self.assertIs(type(value), int, where)
        elif isinstance(types, str):
            self.assertRegex(value, f"^(?:{types})$", where)
        else:
            self.assertIsInstance(value, types, where)


HEX32, HEX64 = "[0-9a-f]{32}", "[0-9a-f]{64}"
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
TREND = "insufficient_data|improving_strongly|improving|stable|degrading_slightly|degrading"
NUMBER_OR_NULL = (int, float, type(None))

PAGES = {
    "/api/v1/status": {
        "node_id": HEX32, "version": r"\d+\.\d+\.\d+.*", "uptime_seconds": int, "status": "training|running",
        "role": "driver", "roles": ["driver|worker|validator"], "layers": [int], "peer_count": int,
        "has_embedding": bool, "has_lm_head": bool,
        "training": {"enabled": bool, "epoch": int, "step": int, "loss": float},
        "resources": {"gpu_memory_used": int, "gpu_memory_total": int, "cpu_percent": float, "ram_used": int,
                      "ram_total": int},
        "model": {"architecture": str, "version": int, "hash": HEX64, "trained": bool, "tokens_trained": int}},
    "/api/v1/metrics": {
        "timestamp": INSTANT,
        "inference": {"requests_total": int, "requests_per_minute": float, "avg_latency_ms": float,
                      "p99_latency_ms": float, "tokens_generated": int},
        "training": {"steps_total": int, "steps_per_hour": float, "gradients_submitted": int,
                     "gradients_accepted": int},
        "network": {"bytes_sent": int, "bytes_received": int, "active_connections": int, "rpc_calls": int,
                    "peer_count": int},
        "rewards": {"earned_today": float, "earned_total": float, "pending": float}},
    "/api/v1/network": {
        "nodes": {"total": int, "drivers": int, "workers": int, "validators": int},
        "architecture": {"layers": int, "hidden_dim": int, "parameters": r"[\d.]+[KMBT]?", "parameter_count": int},
        "capacity": {"total_memory_gb": float, "used_memory_gb": float},
        "training": {"epoch": int, "global_step": int, "loss": float}},
    "/api/v1/layers": {
        "layers": [{"index": int, "type": "transformer|embedding|lm_head", "memory_mb": int, "status": "active"}],
        "total_layers": int, "my_layer_count": int},
    "/api/v1/health": {"healthy": bool, "checks": dict.fromkeys(("gpu", "network", "storage", "peers", "model"),
                                                                 "ok|degraded|error|cpu_only")},
    "/api/v1/peers": {"peers": list, "total": int},
    "/api/v1/proofs": {"proofs": list, "stats": {"total_submitted": int, "total_verified": int, "total_reward": float},
                       "limit": int, "offset": int, "total": int},
    "/api/v1/config": {
        "node_id": HEX32, "port": int, "grpc_port": int, "tracker_url": str,
        "training": {"enabled": bool, "batch_size": int, "learning_rate": float, "diloco_steps": int},
        "resources": {"max_memory_gb": NUMBER_OR_NULL, "cpu_threads": NUMBER_OR_NULL, "max_storage_mb": int}},
    "/api/training/global": {
        "global_avg_loss": float, "global_min_loss": float, "hash_agreement_rate": float, "total_nodes_training": int,
        "successful_syncs": int, "failed_syncs": int, "sync_success_rate": float, "global_steps": int,
        "global_tokens": int, "data_shards_covered": [int], "is_converging": bool, "training_verified": bool,
        "loss_trend": TREND,
        "local": {"node_id": HEX32, "training_rounds": int, "current_loss": float, "is_training": bool,
                  "model_hash": "[0-9a-f]*"},
        "diloco": {"enabled": bool, "inner_step_count": int, "inner_steps_total": int, "progress": float,
                   "outer_step_count": int}},
    "/api/training/verify": {"is_working": bool, "reason": str, "state": "working|insufficient_data|unverified"},
}


class Training(Typed):
    def test_the_loss_falls_and_every_page_tells_what_is_so(self):
        node = self.node(settings={"training.diloco_steps": 100}).start()
        node.wait_step(30)
        wait_for(lambda: node.value("model", "hash"), 10, "the hash of the copy", node)
        for path, types in PAGES.items():
            with self.subTest(page=path):
                answer = node.get(path)
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(answer.headers["Content-Type"].split(";")[0], "application/json")
                self.check_types(answer.json(), types, path)
        node.wait_step(600)
        wait_for(lambda: node.value("model", "trained"), 20, "a trained model", node)
        status = node.status()
        self.assertEqual(status["layers"], [0, 1])
        self.assertTrue(status["has_embedding"] and status["has_lm_head"])
        self.assertGreaterEqual(status["training"]["epoch"], 5)
        self.assertEqual(status["model"]["version"], status["training"]["epoch"])
        self.assertEqual(status["peer_count"], 0)
        losses = node.losses()
        self.assertLess(losses[600][-1], losses[10][-1] - 1.5)
        self.assertAlmostEqual(status["training"]["loss"], losses[600][-1], delta=0.6)
        # Every step has 4 x 32 tokens, none of them padding.
        self.assertEqual(status["model"]["tokens_trained"], status["training"]["step"] * 128)

        everywhere = node.get("/api/training/global").json()
        self.assertEqual((everywhere["total_nodes_training"], everywhere["hash_agreement_rate"]), (1, 1.0))
        self.assertLessEqual(everywhere["global_min_loss"], everywhere["global_avg_loss"])
        self.assertTrue(everywhere["training_verified"])
        self.assertGreaterEqual(everywhere["global_steps"], 600)
        self.assertEqual(everywhere["diloco"]["inner_steps_total"], 100)
        self.assertEqual(everywhere["local"]["node_id"], status["node_id"])
        layers = node.get("/api/v1/layers").json()
        self.assertEqual([(l["type"], l["index"]) for l in layers["layers"]],
                         [("embedding", 0), ("transformer", 0), ("transformer", 1), ("lm_head", 2)])
        self.assertEqual((layers["total_layers"], layers["my_layer_count"]), (2, 2))
        network = node.get("/api/v1/network").json()
        self.assertEqual(network["nodes"], {"total": 1, "drivers": 1, "workers": 1, "validators": 1})
        self.assertEqual((network["architecture"]["layers"], network["architecture"]["hidden_dim"]), (2, 64))

        page = node.get("/metrics", token=False).body.decode()
        self.assertRegex(page, r"(?m)^neuroshard_\w*steps\w* [1-9]\d*$")
        for line in page.splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) neuroshard_\w+ .+|neuroshard_\w+(\{[^}]*\})? [0-9.e+-]+)$")
        self.assertIn("validation step=", node.log())
        with open(os.path.join(node.data_dir, "training_logs", "loss.jsonl"), encoding="utf-8") as f:
            last = [json.loads(line) for line in f][-1]
        self.assertLess(last["validation_loss"], 5)
        self.assertEqual(node.terminate(), 0)
        # Plain lines for people who are no terminal: no control characters, the loss in each.
        said = node.text()
        self.assertNotIn("\x1b", said)
        self.assertNotIn("\r", said)
        self.assertRegex(said, r"(?m)^step [\d,]+ of 100,000 \| loss \d\.\d{3} \| validation \d\.\d{3} \| [\d,]+ tok/s")

    def test_settings_change_while_it_runs_and_survive_a_start(self):
        node = self.node().start().wait_up()
        patch = lambda body: node.request("PATCH", "/api/v1/config", body)
        node.wait_step(5)
        answer = patch({"training": {"enabled": False}})
        self.assertEqual((answer.status, answer.json()),
                         (200, {"success": True, "updated": ["training.enabled"], "restart_required": False}))
        node.wait_status("running")
        standing = node.step()
        self.assertFalse(node.value("training", "enabled"))
        self.assertFalse(node.get("/api/training/global").json()["local"]["is_training"])
        self.assertEqual(node.get("/api/training/verify").json()["state"], "disabled")
        # Inference goes on from what there is.
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 3}).status, 200)
        self.assertEqual(node.step(), standing)

        answer = patch({"training": {"learning_rate": 0.0005, "batch_size": 2, "diloco_steps": 700, "enabled": True}})
        self.assertEqual(sorted(answer.json()["updated"]), ["training.batch_size", "training.diloco_steps",
                                                            "training.enabled", "training.learning_rate"])
        node.wait_step(standing + 30)
        status = node.status()
        self.assertEqual(status["model"]["tokens_trained"], standing * 128 + (status["training"]["step"] - standing) * 64)

        answer = patch({"resources": {"max_memory_gb": 1, "max_storage_mb": 50, "cpu_threads": 1}})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertTrue(answer.json()["restart_required"])
        self.assertEqual(patch({}).json(), {"success": True, "updated": [], "restart_required": False})

        before = node.get("/api/v1/config").json()
        for body, status, code, field in [
                ({"training": {"learning_rate": 0}}, 400, "INVALID_REQUEST", "training.learning_rate"),
                ({"training": {"batch_size": 1025}}, 400, "INVALID_REQUEST", "training.batch_size"),
                ({"training": {"batch_size": 1, "colour": 1}}, 400, "INVALID_REQUEST", "training.colour"),
                ({"training": {"enabled": "no"}}, 400, "INVALID_REQUEST", "training.enabled"),
                ({"resources": {"cpu_threads": 100000}}, 400, "INVALID_REQUEST", "resources.cpu_threads"),
                ({"port": 1}, 403, "FORBIDDEN", "port"), ({"node_id": "0" * 32}, 403, "FORBIDDEN", "node_id")]:
            answer = patch(body)
            self.assertEqual((answer.status, answer.code, answer.details["field"]), (status, code, field), answer.body)
        self.assertEqual(node.get("/api/v1/config").json(), before)

        self.assertEqual(node.terminate(), 0)
        for key in ("training.batch_size", "training.learning_rate", "training.diloco_steps"):
            del node.settings[key]  # flags would win
        node.restart()
        config = node.get("/api/v1/config").json()
        self.assertEqual(config["training"], {"enabled": True, "batch_size": 2, "learning_rate": 0.0005, "diloco_steps": 700})
        self.assertEqual(config["resources"]["max_storage_mb"], 50)
        self.assertRegex(node.log(), r"training\.learning_rate.*config\.json|config\.json.*training\.learning_rate")
        self.assertEqual(node.terminate(), 0)

    def test_a_node_without_text_serves_and_says_why_it_does_not_train(self):
        node = self.node(corpus=False).start("--no-training").wait_up()
        self.assertEqual(node.status()["status"], "running")
        answer = node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 4, "temperature": 0})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(node.request("PATCH", "/api/v1/config", {"training": {"enabled": True}}).status, 200)
        wait_for(lambda: "nothing to train on" in node.log(), 10, "the reason in the log", node)
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 4}).status, 200)
        self.assertEqual((node.step(), node.status()["status"]), (0, "running"))
        self.assertTrue(node.get("/api/v1/health").json()["healthy"])
        self.assertEqual(node.terminate(), 0)

    def test_an_observer_holds_no_layers_and_answers_what_it_can(self):
        node = self.node(corpus=False).start("--observer").wait_up()
        self.assertEqual(node.request("PATCH", "/api/v1/config", {"training": {"enabled": True}}).status, 200)
        status, layers = node.status(), node.get("/api/v1/layers").json()
        self.assertEqual((status["status"], status["training"]["enabled"]), ("running", False))
        self.assertEqual((layers["layers"], layers["my_layer_count"]), ([], 0))
        answer = node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 4})
        self.assertEqual((answer.status, answer.details["reason"]), (500, "not_ready"), answer.body)
        self.assertTrue(node.get("/api/v1/health").json()["healthy"], node.get("/api/v1/health").body)
        self.assertEqual(node.terminate(), 0)
        self.assertEqual(node.checkpoints(), [])

    def test_a_node_begun_without_training_holds_only_what_it_serves_and_trains_when_told_to(self):
        node = self.node().start("--no-training").wait_up()
        wait_for(lambda: "serves-only bytes=" in node.log(), 10, "the memory freed", node)
        self.assertEqual(len(node.checkpoints()), 1)
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 3}).status, 200)
        self.assertEqual(node.request("PATCH", "/api/v1/config", {"training": {"enabled": True}}).status, 200)
        node.wait_step(20)
        self.assertIn("renewing group=model", node.log())
        self.assertNotIn("actor-failed", node.log())
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 3}).status, 200)
        self.assertEqual(node.terminate(), 0)
        self.assertTrue(node.checkpoints())

    def test_what_was_trained_is_served_later_without_its_text(self):
        node = self.node().start()
        node.wait_step(120)
        self.assertEqual(node.terminate(), 0)
        step = int(os.path.basename(node.checkpoints()[-1])[:12])
        del node.settings["data.corpus"]
        node.restart("--no-training").wait_up()
        wait_for(lambda: node.step() == step, 5, f"step {step}", node)
        answer = node.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 8, "temperature": 0})
        self.assertEqual(answer.status, 200)
        # The hash of a copy is known a moment after the copy is served.
        wait_for(lambda: answer.json()["model_hash"] == node.value("model", "hash"), 10, "the hash", node)
        self.assertEqual(node.terminate(), 0)

    def test_bf16_and_tied_heads_train_too(self):
        node = self.node(settings={"model.dtype": "bf16", "model.tie_embeddings": True}).start()
        node.wait_step(300)
        losses = node.losses()
        self.assertLess(losses[300][-1], losses[10][-1] - 1)
        self.assertEqual(node.terminate(), 0)

    def test_text_that_cannot_be_used_is_named_and_the_node_answers(self):
        node = self.node()
        empty = os.path.join(node.directory, "empty.txt")
        with open(empty, "w", encoding="utf-8"):
            pass
        node.settings["data.corpus"] = empty
        node.start()
        wait_for(lambda: node.status()["status"] == "error", 20, "the error", node)
        self.assertIn("empty.txt", node.text())
        self.assertFalse(node.get("/api/v1/health").json()["healthy"])
        answer = node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 4})
        self.assertEqual((answer.status, answer.code, answer.details["reason"]), (500, "INTERNAL_ERROR", "not_ready"))
        self.assertTrue(re.fullmatch(r"\d+", answer.headers["Retry-After"]))
        self.assertEqual(node.terminate(), 0)


if __name__ == "__main__":
    support.main()

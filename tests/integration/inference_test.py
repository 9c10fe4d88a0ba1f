"""POST /inference on a real node: whole and streamed, alone and 64 at once, beside training, paid and refused."""

import concurrent.futures
import json
import math
import os
import signal
import socket
import struct
import unittest

from support import NodeTest, main, neuro, wait_for

# Large enough that a generation takes seconds, so that it can be met in the middle.
SLOW = {"model.num_layers": 6, "model.hidden_dim": 384, "model.num_heads": 6, "model.num_kv_heads": 2,
        "model.ffn_dim": 1024, "model.max_seq_len": 2048}
LONG = {"prompt": "the ", "max_tokens": 1900, "temperature": 0}


def generated(metrics):
    return metrics["inference"]["tokens_generated"]


class Inference(NodeTest):
    def ask(self, node, **body):
        answer = node.post("/api/v1/inference", body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def trained(self, step=150, **settings):
        """A node that has learned a little and then stands still."""
        node = self.node(settings=settings).start()
        node.wait_step(step)
        self.assertEqual(node.request("PATCH", "/api/v1/config", {"training": {"enabled": False}}).status, 200)
        node.wait_status("running")
        return node

    def check_answer(self, got, max_tokens):
        self.assertRegex(got["id"], r"^inf_[0-9a-f]{24}$")
        usage = got["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertGreaterEqual(usage["prompt_tokens"], 2)
        self.assertLessEqual(usage["completion_tokens"], max_tokens)
        self.assertEqual(got["finish_reason"] == "length", usage["completion_tokens"] == max_tokens)
        timing = got["timing"]
        self.assertAlmostEqual(timing["total_ms"], timing["queue_ms"] + timing["inference_ms"], places=2)
        self.assertEqual(got["cost"]["currency"], "NEURO")

    def test_answers_are_whole_repeatable_and_the_same_streamed(self):
        node = self.trained()
        # No space behind the prompt: that is a token the corpus never has there, and at some steps nothing but the end of the
        # text follows it, whatever the seed.
        first = self.ask(node, prompt="in the", max_tokens=24, seed=7)
        self.check_answer(first, 24)
        self.assertEqual(first["tokens_generated"], first["usage"]["completion_tokens"])
        self.assertEqual((first["seed"], first["cost"]["amount"]), (7, 0.0))
        self.assertRegex(first["model_hash"], r"^[0-9a-f]{64}$")
        again = self.ask(node, prompt="in the", max_tokens=24, seed=7)
        self.assertEqual((again["text"], again["model_hash"]), (first["text"], first["model_hash"]))
        self.assertNotEqual(again["id"], first["id"])
        # Each equal request without a seed is a generation of its own, with a seed of its own.
        others = [self.ask(node, prompt="in the", max_tokens=24) for _ in range(6)]
        for field in ("id", "seed"):
            self.assertEqual(len({other[field] for other in others}), 6, others)
        self.assertGreater(len({other["text"] for other in others}), 1, others)
        # The seed that was drawn is told, and repeats its answer.
        drawn = self.ask(node, prompt="in the", max_tokens=24)
        self.assertEqual(self.ask(node, prompt="in the", max_tokens=24, seed=drawn["seed"])["text"], drawn["text"])
        greedy = {self.ask(node, prompt="in the", max_tokens=16, temperature=0)["text"] for _ in range(3)}
        self.assertEqual(len(greedy), 1)
        self.assertEqual(self.ask(node, prompt="in the", max_tokens=16, top_k=1)["text"], *greedy)

        frames = list(node.stream({"prompt": "in the", "max_tokens": 24, "seed": 7, "logprobs": True}))
        last = frames.pop()
        self.assertEqual(last["token"], "[DONE]")
        self.check_answer(last, 24)
        self.assertEqual([f["index"] for f in frames], list(range(len(frames))))
        self.assertEqual("".join(f["token"] for f in frames), first["text"])
        self.assertEqual(last["usage"], first["usage"])
        for frame in frames:
            self.assertLessEqual(frame["logprob"], 0)
            self.assertTrue(math.isfinite(frame["logprob"]))
        self.assertNotIn("logprob", next(node.stream({"prompt": "in the", "max_tokens": 4})))

        one = self.ask(node, prompt="in the", max_tokens=1)
        self.assertEqual(one["usage"]["completion_tokens"], 1)
        # Pages are renewed once a second.
        wait_for(lambda: node.metrics()["inference"]["requests_total"] >= 16, 5, "16 requests", node)
        metrics = node.metrics()["inference"]
        self.assertGreater(metrics["tokens_generated"], 100)
        self.assertGreaterEqual(metrics["p99_latency_ms"], metrics["avg_latency_ms"] * 0.5)

    def test_stop_strings_end_the_text_before_them(self):
        node = self.trained()
        # What so small a model says depends on the step it stopped at. A word (a space behind it is a token the corpus
        # never has there, and at some steps the end of the text is all that follows it).
        for seed in range(50):
            how = {"prompt": "in the", "max_tokens": 40, "temperature": 1, "seed": seed}
            whole = self.ask(node, **how)["text"]
            if len(whole) > 8 and whole.isascii():
                break
        self.assertGreater(len(whole), 8)
        stop = whole[4:7]
        expected = whole[:whole.index(stop)]
        cut = self.ask(node, **how, stop=["never so", stop])
        self.assertEqual((cut["text"], cut["finish_reason"]), (expected, "stop"))
        frames = list(node.stream({**how, "stop": [stop]}))
        self.assertEqual("".join(f["token"] for f in frames[:-1]), expected)
        self.assertEqual(frames[-1]["finish_reason"], "stop")
        self.assertEqual(self.ask(node, **how, stop=None)["text"], whole)

    def test_64_at_once_beside_training(self):
        node = self.node(settings={"inference.refresh_s": 1}).start()
        node.wait_step(50)
        begin = node.step()
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            def one(i):
                if i % 2:
                    frames = list(node.stream({"prompt": f"the {i} ", "max_tokens": 60, "seed": i}))
                    return frames[-1]["finish_reason"], "".join(f["token"] for f in frames[:-1])
                got = self.ask(node, prompt=f"the {i} ", max_tokens=60, seed=i)
                return got["finish_reason"], got["text"]
            outcomes = list(pool.map(one, range(64)))
        self.assertTrue(all(reason in ("stop", "length") for reason, _ in outcomes), outcomes)
        self.assertGreater(len({text for _, text in outcomes}), 20)
        node.wait_step(begin + 20)
        # The copy that is served follows training.
        hashes = {self.ask(node, prompt="the ", max_tokens=2)["model_hash"]}
        def renewed():
            hashes.add(self.ask(node, prompt="the ", max_tokens=2)["model_hash"])
            return len(hashes) > 1
        wait_for(renewed, 20, "another version", node)
        self.assertEqual(node.terminate(), 0)

    def test_what_cannot_be_asked_is_refused_with_the_limit(self):
        node = self.node(settings={"training.enabled": False}).start().wait_up()
        for body, field in [
                ({}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": 5}, "prompt"), ({"prompt": "a" * 300_000}, "prompt"),
                ({"prompt": "a", "max_tokens": 0}, "max_tokens"), ({"prompt": "a", "max_tokens": 10**9}, "max_tokens"),
                ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"), ({"prompt": "a", "temperature": 2.1}, "temperature"),
                ({"prompt": "a", "temperature": -1}, "temperature"), ({"prompt": "a", "top_p": 0}, "top_p"),
                ({"prompt": "a", "top_k": -1}, "top_k"), ({"prompt": "a", "stop": ["x"] * 17}, "stop"),
                ({"prompt": "a", "stop": [""]}, "stop"), ({"prompt": "a", "stop": "x"}, "stop"),
                ({"prompt": "a", "stream": "yes"}, "stream"), ({"prompt": "a", "seed": -1}, "seed"),
                ({"prompt": "a", "seed": 2**64}, "seed")]:
            answer = node.post("/api/v1/inference", body)
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (body, answer.body))
            self.assertTrue(answer.details["field"].startswith(field), (body, answer.details))
            self.assertIn("reason", answer.details)
        for extra in ({}, {"stream": True}):
            answer = node.post("/api/v1/inference", {"prompt": "word " * 400, "max_tokens": 10, **extra})
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), answer.body)
            self.assertEqual(answer.details["field"], "prompt")
            self.assertEqual(answer.details["limit"], 256)
            self.assertEqual(answer.headers["Content-Type"].split(";")[0], "application/json")
        # 100.0 is an integer, what is unknown is ignored, and any text is text.
        for body in ({"prompt": "a", "max_tokens": 2.0}, {"prompt": "a", "max_tokens": 2, "colour": "red"},
                     {"prompt": "a\x00b\x01\x7f", "max_tokens": 2}, {"prompt": "\U0001f600 \u00e9\u0301", "max_tokens": 2},
                     {"prompt": "<s>[INST]</s>", "max_tokens": 2, "top_k": 10**12}):
            self.ask(node, **body)
        for raw in (b'{"prompt":"\xff\xfe","max_tokens":2}', b'{"prompt":"\xed\xa0\x80","max_tokens":2}',
                    b'{"prompt":"\\ud800","max_tokens":2}', b'{"prompt":"a\x00b","max_tokens":2}'):
            answer = node.request("POST", "/api/v1/inference", raw=raw)
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (raw, answer.body))
        self.assertEqual(node.terminate(), 0)

    def open_stream(self, node, **more):
        """A raw connection that has sent a streamed request."""
        body = json.dumps({**LONG, "stream": True, **more})
        link = node.connect()
        link.sendall(f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return link

    def test_a_client_that_leaves_frees_its_slot_at_once(self):
        node = self.node(settings={**SLOW, "training.enabled": False}).start().wait_up()
        for abrupt in (False, True):
            before = generated(node.metrics())
            link = self.open_stream(node)
            got = b""
            while got.count(b"data: ") < 5:
                got += link.recv(4096)
            if abrupt:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
            node.wait_rest(generated)
            self.assertLess(generated(node.metrics()) - before, 1500)
        # One who does not read at all hinders nobody.
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.connect(("127.0.0.1", node.port))
        body = json.dumps({**LONG, "stream": True})
        lazy.sendall(f"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        self.assertEqual(self.ask(node, prompt="the ", max_tokens=8, temperature=0)["tokens_generated"], 8)
        lazy.close()
        node.wait_rest(generated)
        self.assertEqual(node.terminate(), 0)

    def test_a_full_queue_refuses_and_a_stop_ends_what_runs(self):
        node = self.node(settings={**SLOW, "training.enabled": False, "inference.max_queue": 1}).start().wait_up()
        links = [self.open_stream(node) for _ in range(72)]
        refused = started = 0
        for link in links:
            head = link.recv(4096).decode()
            if head.startswith("HTTP/1.1 200"):
                started += 1
                continue
            refused += 1
            self.assertTrue(head.startswith("HTTP/1.1 500"), head)
            self.assertIn('"reason":"overloaded"', head)
            self.assertRegex(head, r"(?i)\r\nretry-after: \d+\r\n")
            if refused >= 3:
                break
        self.assertGreaterEqual(refused, 1)
        self.assertGreaterEqual(started, 1)
        node.signal(signal.SIGTERM)

        def draining():
            try:
                answer = node.post("/api/v1/inference", {"prompt": "a", "max_tokens": 1})
            except OSError:
                return True
            return answer.status == 500 and answer.details["reason"] == "draining"
        wait_for(draining, 10, "draining", node)
        self.assertEqual(node.wait_end(), 0, node.text())
        for link in links:
            link.close()
        self.assertEqual(node.run("ledger", "verify").returncode, 0)


class Paid(NodeTest):
    SETTINGS = {"inference.charge_self": True, "economics.maturity_s": 1, "economics.training_per_batch": "2"}

    def test_without_a_balance_it_is_402_with_the_amounts(self):
        node = self.node(settings={**self.SETTINGS, "training.enabled": False}).start().wait_up()
        for extra in ({}, {"stream": True}):
            answer = node.post("/api/v1/inference", {"prompt": "a", "max_tokens": 100, **extra})
            self.assertEqual((answer.status, answer.code), (402, "INSUFFICIENT_BALANCE"), answer.body)
            # BOS and one token of prompt.
            self.assertEqual(answer.details, {"required": 0.0102, "available": 0.0, "balance": 0.0})
            self.assertIn(b'"required":0.0102,', answer.body)
        self.assertEqual(node.ledger(), [])
        self.assertEqual(node.terminate(), 0)

    def test_it_is_paid_from_earned_rewards_exactly_and_once(self):
        node = self.funded_node(settings=self.SETTINGS)
        balance = lambda: node.get("/api/v1/wallet/balance").exact()["balances"]
        self.assertGreater(balance()["available"], 1)

        def pays(ask):
            before = balance()
            usage, cost = ask()
            self.assertEqual(neuro(cost), usage["total_tokens"] * 10**14)
            after = balance()
            # The fee comes back to the wallet, which did all the work, but for the burned twentieth.
            self.assertEqual(neuro(before["total"]) - neuro(after["total"]), neuro(cost) // 20)
            self.assertEqual(after["pending"], 0)

        def whole():
            got = node.post("/api/v1/inference", {"prompt": "the word ", "max_tokens": 30, "temperature": 0}).exact()
            costs.append((got["id"], got["cost"]["amount"]))
            return got["usage"], got["cost"]["amount"]

        def streamed():
            last = list(node.stream({"prompt": "the word ", "max_tokens": 30}, exact=True))[-1]
            costs.append((last["id"], last["cost"]["amount"]))
            return last["usage"], last["cost"]["amount"]
        costs = []
        pays(whole)
        pays(streamed)
        # The history, newest first, has of each what was paid and what came back.
        page = node.get("/api/v1/wallet/transactions?type=inference").exact()["transactions"]
        self.assertEqual(len(page), 4)
        self.assertEqual([t["amount"] for t in page if t["amount"] < 0], [-cost for _, cost in reversed(costs)])
        self.assertEqual([t["details"]["request_id"] for t in page if t["amount"] < 0], [request for request, _ in reversed(costs)])
        for paid, earned in zip(page[1::2], page[::2]):
            self.assertEqual(neuro(earned["amount"]), -neuro(paid["amount"]) * 19 // 20)
            self.assertEqual((paid["type"], paid["status"]), ("inference", "confirmed"))

        # The same key gives the stored answer, at no further cost; with another body it is a mistake.
        body = {"prompt": "the ", "max_tokens": 5}
        key = {"Idempotency-Key": "abc 123"}
        first = node.post("/api/v1/inference", body, headers=key)
        total = balance()["total"]
        second = node.post("/api/v1/inference", body, headers=key)
        self.assertEqual((first.status, second.body), (200, first.body))
        self.assertEqual(balance()["total"], total)
        other = node.post("/api/v1/inference", {**body, "max_tokens": 6}, headers=key)
        self.assertEqual((other.status, other.code), (400, "INVALID_REQUEST"))
        self.assertNotEqual(node.post("/api/v1/inference", body).json()["id"], first.json()["id"])
        self.assertEqual(node.terminate(), 0)

        # Money is made by rewards alone: what was paid to oneself came back but for the burned share.
        book = node.ledger()
        minted = sum(neuro(t["amount"]) for t in book if t["kind"] == "reward")
        text = node.run("ledger", "verify").stdout
        self.assertIn(f"minted:       {minted // 10**18}", text)
        self.assertEqual(len({t["tx_id"] for t in book}), len(book))

    def test_a_kill_in_the_middle_gives_the_reservation_back(self):
        node = self.funded_node(3, settings={**self.SETTINGS, **SLOW, "economics.training_per_batch": "20000"})
        balance = lambda: node.get("/api/v1/wallet/balance").exact()["balances"]
        whole = balance()["total"]
        stream = node.stream(LONG)
        next(stream)
        self.assertGreater(balance()["pending"], 0)
        node.kill()
        stream.close()
        node.start("--no-training").wait_up()
        wait_for(lambda: balance()["pending"] == 0, 20, "the reservation to end", node)
        self.assertLessEqual(balance()["total"], whole)
        self.assertGreater(balance()["available"], float(whole) - 0.3)
        self.assertEqual(node.terminate(), 0)
        node.ledger()


if __name__ == "__main__":
    main()

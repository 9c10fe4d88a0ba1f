"""The wallet over HTTP on a node that has earned something: every call, every refusal, and no money from nowhere."""

import datetime
import json
import os
import socket
import unittest

from support import NodeTest, main, neuro, wait_for

FRIEND = "0x" + "ab" * 20
# 60 steps of 4 x 32 tokens earn some thousands, so that the least stake can be paid.
RICH = {"economics.maturity_s": 1, "economics.training_per_batch": "400", "economics.max_per_proof": "100000",
        "economics.max_per_wallet_day": "10000000"}


class Wallet(NodeTest):
    def setUp(self):
        super().setUp()
        self.rich = self.funded_node(settings=RICH)

    def balances(self):
        return self.rich.get("/api/v1/wallet/balance").exact()["balances"]

    def history(self, query=""):
        answer = self.rich.get("/api/v1/wallet/transactions" + query)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.exact()

    def refused(self, path, body, status, code, **details):
        answer = self.rich.post(path, body)
        self.assertEqual((answer.status, answer.code), (status, code), (body, answer.body))
        for name, value in details.items():
            self.assertEqual(answer.exact()["error"]["details"][name], value, answer.body)
        return answer

    def end(self):
        """Stops the node and looks at the whole book: every posting sums to nothing, and the API told the truth."""
        told = self.balances()
        address = self.rich.get("/api/v1/wallet/balance").json()["address"]
        self.assertEqual(self.rich.terminate(), 0)
        parts = {"available": 0, "staked": 0, "pending": 0}
        others = 0
        for entry in self.rich.ledger():
            deltas = [neuro(posting["delta"]) for posting in entry["postings"]]
            self.assertEqual(sum(deltas), 0, entry)
            for posting, delta in zip(entry["postings"], deltas):
                if posting["account"] == address:
                    name = posting["part"] if posting["part"] in parts else "pending"
                    parts[name] += delta
                else:
                    others += delta
        for name, value in parts.items():
            self.assertEqual(value, neuro(told[name]), name)
        self.assertEqual(sum(parts.values()) + others, 0)

    def test_send(self):
        before = self.balances()
        self.assertGreater(before["available"], 1000)
        self.assertEqual(before["total"], before["available"] + before["staked"] + before["pending"])
        answer = self.rich.post("/api/v1/wallet/send", {"to": FRIEND.upper().replace("0X", "0x"), "amount": 100, "memo": "for the \u00e9"})
        self.assertEqual(answer.status, 200, answer.body)
        sent = answer.exact()
        self.assertRegex(sent["transaction_id"], r"^[0-9a-f]{64}$")
        self.assertEqual((sent["to"], sent["amount"], neuro(sent["fee"]), sent["memo"], sent["status"]),
                         (FRIEND, 100, neuro("0.1"), "for the \u00e9", "confirmed"))
        self.assertIn(b'"amount":100.0,', answer.body)
        after = self.balances()
        self.assertEqual(before["available"] - after["available"], sent["amount"] + sent["fee"])
        newest = self.history("?limit=1")["transactions"][0]
        self.assertEqual((newest["id"], newest["type"], newest["to"], newest["memo"]),
                         (sent["transaction_id"], "send", FRIEND, "for the \u00e9"))
        self.assertEqual((newest["amount"], newest["fee"]), (-100, sent["fee"]))
        # Numbers are what is written, to the last digit: 18 digits, exponents, strings.
        for text, atto in (("0.000000000000000001", 1), ("1e-05", 10**13), ('"0.1"', 10**17), ('"2.5e0"', 25 * 10**17),
                           ("0.1000000000000000005", 10**17), ("0.1000000000000000015", 10**17 + 2)):
            answer = self.rich.request("POST", "/api/v1/wallet/send", raw=f'{{"to":"{FRIEND}","amount":{text}}}',
                                       headers={"Content-Type": "application/json"})
            self.assertEqual(answer.status, 200, (text, answer.body))
            self.assertEqual(neuro(answer.exact()["amount"]), atto, text)
        own = self.rich.get("/api/v1/wallet/balance").json()["address"]
        for body, field in [
                ({"amount": 1}, "to"), ({"to": FRIEND}, "amount"), ({"to": "0x12", "amount": 1}, "to"),
                ({"to": own, "amount": 1}, "to"), ({"to": "0x" + "0" * 40, "amount": 1}, "to"),
                ({"to": FRIEND, "amount": 0}, "amount"), ({"to": FRIEND, "amount": -1}, "amount"),
                ({"to": FRIEND, "amount": "-0"}, "amount"), ({"to": FRIEND, "amount": "abc"}, "amount"),
                ({"to": FRIEND, "amount": True}, "amount"), ({"to": FRIEND, "amount": "0.0000000000000000001"}, "amount"),
                ({"to": FRIEND, "amount": 1, "memo": "m" * 257}, "memo"), ({"to": FRIEND, "amount": 1, "memo": 1}, "memo")]:
            self.refused("/api/v1/wallet/send", body, 400, "INVALID_REQUEST", field=field)
        for raw in ("1e400", "1e41", "-0", "1e-30", "0e5", "NaN", "Infinity", "0x10", "01", "1.", "9" * 70):
            answer = self.rich.request("POST", "/api/v1/wallet/send", raw=f'{{"to":"{FRIEND}","amount":{raw}}}')
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (raw, answer.body))
        now = self.balances()["available"]
        answer = self.refused("/api/v1/wallet/send", {"to": FRIEND, "amount": 10**9}, 402, "INSUFFICIENT_BALANCE",
                              required=10**9 + 10**6, available=now, balance=now)
        self.assertIn("required", answer.details)
        self.assertEqual(self.balances()["available"], now)
        self.end()

    def test_a_repeated_send_is_executed_once_when_its_answer_was_lost_and_twice_when_it_was_read(self):
        body = json.dumps({"to": FRIEND, "amount": 3}).encode()
        head = (f"POST /api/v1/wallet/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.rich.token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        sends = lambda: self.history("?type=send")["total"]
        # The client sends its request and is gone before the answer.
        link = self.rich.connect()
        link.sendall(head + body)
        link.shutdown(socket.SHUT_WR)
        link.close()
        wait_for(lambda: sends() == 1, 10, "the first send", self.rich)
        again = self.rich.post("/api/v1/wallet/send", json.loads(body))
        self.assertEqual(again.status, 200)
        first = self.history("?type=send")["transactions"][0]["id"]
        self.assertEqual((again.json()["transaction_id"], sends()), (first, 1))
        # That answer was read and its connection closed in order: from here on the same words are a new wish.
        def anew():
            return self.rich.post("/api/v1/wallet/send", json.loads(body)).json()["transaction_id"] != first
        wait_for(anew, 10, "a new send", self.rich)
        self.assertEqual(sends(), 2)

        key = {"Idempotency-Key": "k-1"}
        answers = [self.rich.post("/api/v1/wallet/send", {"to": FRIEND, "amount": 4}, headers=key) for _ in range(3)]
        self.assertEqual(len({a.body for a in answers}), 1)
        self.assertEqual(sends(), 3)
        other = self.rich.post("/api/v1/wallet/send", {"to": FRIEND, "amount": 5}, headers=key)
        self.assertEqual((other.status, other.code), (400, "INVALID_REQUEST"))
        # The key outlives the process.
        self.assertEqual(self.rich.terminate(), 0)
        self.rich.start("--no-training").wait_up()
        self.assertEqual(self.rich.post("/api/v1/wallet/send", {"to": FRIEND, "amount": 4}, headers=key).body, answers[0].body)
        self.assertEqual(sends(), 3)
        self.end()

    def test_history_is_paged_and_filtered(self):
        for i in range(7):
            self.assertEqual(self.rich.post("/api/v1/wallet/send", {"to": FRIEND, "amount": i + 1}).status, 200)
        everything = self.history("?limit=100")
        self.assertEqual(everything["total"], len(everything["transactions"]))
        paged = []
        for offset in range(0, everything["total"], 3):
            page = self.history(f"?limit=3&offset={offset}")
            self.assertEqual((page["limit"], page["offset"], page["total"]), (3, offset, everything["total"]))
            paged += page["transactions"]
        self.assertEqual(paged, everything["transactions"])
        self.assertEqual([t["amount"] for t in self.history("?type=send")["transactions"]], [-i for i in range(7, 0, -1)])
        self.assertEqual(self.history("?type=slash"), {"transactions": [], "total": 0, "limit": 10, "offset": 0})
        today = datetime.datetime.now(datetime.timezone.utc).date()
        yesterday = today - datetime.timedelta(days=1)
        tomorrow = today + datetime.timedelta(days=1)
        self.assertEqual(self.history(f"?start_date={yesterday}&end_date={tomorrow}")["total"], everything["total"])
        self.assertEqual(self.history(f"?end_date={yesterday - datetime.timedelta(days=1)}")["total"], 0)
        for query in ("limit=0", "limit=101", "limit=x", "offset=-1", "type=gift", "start_date=today", "start_date=2026-02-30",
                      "start_date=2026-02-02&end_date=2026-02-01"):
            answer = self.rich.get("/api/v1/wallet/transactions?" + query)
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), query)
        rewards = self.rich.get("/api/v1/wallet/rewards").exact()
        self.assertEqual(len(rewards["by_day"]), 31)
        self.assertEqual(rewards["total"], sum(day["amount"] for day in rewards["by_day"]))
        self.assertEqual(rewards["total"], sum(rewards["by_type"].values()))
        self.assertEqual(set(rewards["by_type"]), {"uptime", "inference", "training", "data", "validation"})
        earned = sum(t["amount"] for t in everything["transactions"] if t["type"] == "reward")
        self.assertEqual(rewards["by_type"]["training"], earned)
        rate = self.rich.get("/api/v1/wallet/reward-rate").json()
        self.assertAlmostEqual(rate["effective_rate"], rate["base_rate"] * rate["role_multiplier"] * rate["stake_multiplier"]
                               * rate["reputation_multiplier"], places=6)
        self.end()

    def test_stake(self):
        info = lambda: self.rich.get("/api/v1/stake/info").exact()
        self.assertEqual((info()["stake"], info()["unlock_date"]), (0, None))
        self.refused("/api/v1/wallet/stake", {"amount": 999}, 400, "INVALID_REQUEST", field="amount")
        self.refused("/api/v1/wallet/stake", {"amount": 1000, "duration_days": 6}, 400, "INVALID_REQUEST", field="duration_days")
        self.refused("/api/v1/wallet/stake", {"amount": 1000, "duration_days": 366}, 400, "INVALID_REQUEST", field="duration_days")
        self.refused("/api/v1/wallet/stake/add", {"amount": 1}, 400, "INVALID_REQUEST")
        self.refused("/api/v1/wallet/stake/extend", {"additional_days": 1}, 400, "INVALID_REQUEST")
        self.refused("/api/v1/wallet/unstake", {}, 400, "INVALID_REQUEST")
        before = self.balances()
        made = self.rich.post("/api/v1/wallet/stake", {"amount": 1000, "duration_days": 30})
        self.assertEqual(made.status, 200, made.body)
        made = made.exact()
        self.assertTrue(made["success"])
        stake = made["stake"]
        start, unlock = (datetime.date.fromisoformat(stake[name]) for name in ("start_date", "unlock_date"))
        self.assertEqual(((unlock - start).days, stake["duration_days"], stake["amount"]), (30, 30, 1000))
        self.assertGreater(stake["multiplier"], 1)
        self.assertEqual(self.balances(), {**before, "available": before["available"] - 1000, "staked": 1000})
        added = self.rich.post("/api/v1/wallet/stake/add", {"amount": "50.5"}).exact()["stake"]
        self.assertEqual((neuro(added["amount"]), added["unlock_date"]), (neuro("1050.5"), stake["unlock_date"]))
        extended = self.rich.post("/api/v1/wallet/stake/extend", {"additional_days": 10}).exact()["stake"]
        self.assertEqual(datetime.date.fromisoformat(extended["unlock_date"]), unlock + datetime.timedelta(days=10))
        self.refused("/api/v1/wallet/unstake", {"amount": 10}, 400, "INVALID_REQUEST", reason="stake_locked",
                     unlock_date=extended["unlock_date"])
        flat = info()
        self.assertEqual((flat["stake"], flat["amount"], flat["unlock_date"], flat["days_remaining"]),
                         (neuro("1050.5") / 10**18, neuro("1050.5") / 10**18, extended["unlock_date"], 40))
        self.assertEqual(self.rich.get("/api/v1/wallet/stake").exact(), flat)
        self.assertEqual(self.rich.get("/api/v1/wallet/balance").json()["staking"]["amount"], 1050.5)
        self.end()

    def test_scopes_hold(self):
        """Further tokens see what their scopes allow, and no token sees nothing."""
        import hashlib
        self.assertEqual(self.rich.terminate(), 0)
        toml = os.path.join(self.rich.directory, "tokens.toml")
        rule = lambda token, scopes: (f'{{sha256 = "{hashlib.sha256(token.encode()).hexdigest()}", '
                                      f"scopes = {json.dumps(scopes)}}}")
        with open(toml, "w", encoding="utf-8") as f:
            f.write(f'[api]\ntokens = [{rule("reader-token-1", ["read"])}, {rule("writer-token-1", ["inference"])}]\n')
        self.rich.start("--no-training", "--config", toml).wait_up()
        calls = [("GET", "/api/v1/wallet/balance", None, {"reader-token-1"}),
                 ("POST", "/api/v1/wallet/send", {"to": FRIEND, "amount": 1}, set()),
                 ("POST", "/api/v1/inference", {"prompt": "a", "max_tokens": 1}, {"writer-token-1"}),
                 ("PATCH", "/api/v1/config", {}, set()), ("GET", "/api/v1/layers", None, {"reader-token-1"})]
        for method, path, body, allowed in calls:
            for token in ("reader-token-1", "writer-token-1"):
                answer = self.rich.request(method, path, body, token=token)
                if token in allowed:
                    self.assertEqual(answer.status, 200, (path, answer.body))
                else:
                    self.assertEqual((answer.status, answer.code), (403, "FORBIDDEN"), (path, answer.body))
            for token in ("nobodys-token", None):
                answer = self.rich.request(method, path, body, token=token)
                self.assertEqual((answer.status, answer.code, answer.headers["WWW-Authenticate"]),
                                 (401, "UNAUTHORIZED", "Bearer"), path)
        self.end()


if __name__ == "__main__":
    main()

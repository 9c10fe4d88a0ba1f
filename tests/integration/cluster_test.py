"""Nodes that hold one model together: two that share out its layers, three that hold all of it."""

import json
import os
import shutil
import unittest

from cluster import ClusterTest, grpc_address, hash_of, held, outer
from support import main, neuro, wait_for


class Cluster(ClusterTest):
    def test_two_nodes_share_out_the_layers_train_them_and_lose_one_another(self):
        nodes = self.start_nodes(2, **{"peers.max_layers": 1, "training.diloco_steps": 40, "training.microbatches": 2})
        self.wait_outer(nodes, 2)
        self.assertEqual(held(nodes[0]) | held(nodes[1]),
                         {("embedding", 0), ("transformer", 0), ("transformer", 1), ("lm_head", 2)})
        self.assertFalse(held(nodes[0]) & held(nodes[1]))
        driver, other = sorted(nodes, key=lambda node: ("embedding", 0) not in held(node))
        losses = driver.losses()
        self.assertLess(losses[max(losses)][-1], losses[min(losses)][0] - 0.3)
        # The other half dies: training waits, and goes on when it is back.
        other.kill()
        wait_for(lambda: "layer." in driver.log().split("waits why=")[-1][:60], 60, "a word of what is missing", driver)
        before = outer(driver)
        other.restart().wait_up()
        wait_for(lambda: outer(driver) > before + 1, 90, "further outer steps", driver)

    def test_a_node_of_another_wallet_is_paid_by_a_receipt_that_both_keep(self):
        nodes = self.start_nodes(2, **{"peers.max_layers": 1, "training.diloco_steps": 40, "training.microbatches": 2,
                                       "economics.maturity_s": 1, "economics.training_per_batch": "2"})
        self.wait_outer(nodes, 2)
        driver, other = sorted(nodes, key=lambda node: ("embedding", 0) not in held(node))
        available = lambda: driver.get("/api/v1/wallet/balance").exact()["balances"]["available"]
        wait_for(lambda: available() > 1, 90, "something to pay with", driver)
        # So that both stay at one version.
        driver.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
        answers = []

        def answered():
            answers.append(driver.post("/api/v1/inference", {"prompt": "the word ", "max_tokens": 20, "temperature": 0}))
            return answers[-1].status == 200
        wait_for(answered, 60, "an answer", driver)
        answer = answers[-1].exact()
        cost = neuro(answer["cost"]["amount"])
        self.assertEqual(cost, answer["usage"]["total_tokens"] * 10**14)

        def exported(node, records):
            lines = node.run("ledger", "export", "--records", records).stdout.splitlines()
            return [line for line in map(json.loads, lines) if answer["id"] in line.values()]

        def confirmed():
            receipts = exported(other, "receipts")
            return len(receipts) == 1 and receipts[0]["confirmed"]
        wait_for(confirmed, 30, "the receipt with both signatures", other)
        mine, theirs = exported(driver, "receipts")[0], exported(other, "receipts")[0]
        self.assertEqual(mine["receipt_id"], theirs["receipt_id"])
        self.assertTrue(mine["confirmed"] and theirs["own"] and theirs["head"])
        shares = [share for share in exported(driver, "shares") if share["receipt_id"] == theirs["receipt_id"]]
        self.assertEqual({share["address"] for share in shares}, {theirs["worker_wallet"]})
        # 95 % of it: half of the layers' 70 %, and the head's 15 %.
        self.assertEqual({share["role"]: neuro(share["amount"]) for share in shares},
                         {"worker": cost * 95 // 100 * 35 // 100, "validator": cost * 95 // 100 * 15 // 100})
        for node in nodes:
            node.ledger()  # in order, every signature
        # The worker's book credits nothing.
        self.assertEqual([t for t in other.ledger() if t["kind"].startswith("infer")], [])

    def test_three_nodes_with_the_whole_model_end_each_round_with_the_same_weights(self):
        # A round of ten seconds on a quiet machine: long enough to meet in.
        nodes = self.start_nodes(3, **{"training.diloco_steps": 4000})
        self.wait_outer(nodes, 2, 120)

        def agree():
            versions = {outer(node) for node in nodes}
            return len(versions) == 1 and len({hash_of(node) for node in nodes}) == 1 and hash_of(nodes[0])

        wait_for(agree, 60, "equal hashes", nodes[0])
        wait_for(lambda: "members=3" in nodes[0].log(), 60, "a round of three", nodes[0])

    def test_a_pipeline_writes_what_one_process_with_the_same_weights_writes(self):
        settings = {**self.one_wallet(), **self.one_text()}
        whole = self.add_node(**settings, **{"training.diloco_steps": 100}).start()
        wait_for(lambda: outer(whole) >= 3, 60, "three outer steps", whole)
        self.assertEqual(whole.terminate(), 0, whole.text())
        (checkpoints,) = os.scandir(os.path.join(whole.data_dir, "checkpoints"))
        whole.start("--no-training").wait_up()
        bodies = [{"prompt": "the ", "max_tokens": 200, "temperature": 0},
                  *({"prompt": "the heart ", "max_tokens": 200, "temperature": 1, "seed": seed} for seed in range(5))]
        wanted = [whole.post("/api/v1/inference", body).json()["text"] for body in bodies]
        self.assertEqual(len(set(wanted)), len(wanted))
        # Two others, each with half of the layers of that checkpoint.
        parts = []
        for _ in range(2):
            part = self.add_node(*(grpc_address(node) for node in parts), **settings,
                                 **{"peers.max_layers": 1, "training.enabled": False})
            folder = checkpoints.name.rsplit("-", 1)[0] + f"-{part.settings['instance']}"
            shutil.copytree(checkpoints.path, os.path.join(part.data_dir, "checkpoints", folder))
            os.chmod(part.data_dir, 0o700)
            parts.append(part.start())
        wait_for(lambda: sorted(map(len, map(held, parts))) == [2, 2] and not held(parts[0]) & held(parts[1]), 60,
                 "half of the model on each", parts[0])
        for part in parts:
            self.assertEqual(outer(part), outer(whole))
        for part in parts:  # one drives with its own layers, the other is given everything back for the first ones
            answers = []

            def answered(body, part=part, answers=answers):
                answers.append(part.post("/api/v1/inference", body))
                return answers[-1].status == 200
            for body, text in zip(bodies, wanted):
                wait_for(lambda body=body: answered(body), 60, "an answer of the pipeline", part)
                self.assertEqual(answers[-1].json()["text"], text)


if __name__ == "__main__":
    main()

"""A generation over several nodes while one of them is killed: with another that holds the same layers, and without."""

import unittest

from cluster import ClusterTest, hash_of, held, outer, processor_ns
from support import main, neuro, wait_for

# Rounds long enough that the nodes meet in them, and a context long enough to kill somebody in the middle of it.
SHAPE = {"peers.max_layers": 1, "training.diloco_steps": 800, "training.microbatches": 2, "model.max_seq_len": 2048}
LONG = {"prompt": "the ", "max_tokens": 1900, "temperature": 0.7, "seed": 7, "logprobs": True}
EMBED = ("embedding", 0)


class Failover(ClusterTest):
    def split(self, nodes):
        """Those that drive, those that hold the other stage; each stage on half of the nodes."""
        drivers = [node for node in nodes if EMBED in held(node)]
        stages = [node for node in nodes if held(node) and EMBED not in held(node)]
        return drivers, stages

    def rest_at_one_version(self, nodes):
        """Trains at least one outer step together, then stops where the replicas serve the same weights."""
        half = len(nodes) // 2

        def settled():
            drivers, stages = self.split(nodes)
            return (len(drivers), len(stages)) == (half, half) and len({outer(node) for node in nodes}) == 1 and \
                outer(nodes[0]) >= 1 and all(len({hash_of(node) for node in part}) == 1 for part in (drivers, stages))

        wait_for(settled, 120, "all at one outer step", nodes[0])
        self.pause_training(nodes)
        wait_for(settled, 60, "all at one outer step at rest", nodes[0])
        return self.split(nodes)

    def check_frames(self, frames):
        self.assertEqual([frame["index"] for frame in frames], list(range(len(frames))))

    def test_a_stage_with_a_replica_is_killed_and_the_reader_does_not_notice(self):
        nodes = self.start_nodes(4, **self.one_wallet(), **self.one_text(), **SHAPE)
        drivers, stages = self.rest_at_one_version(nodes)
        driver = drivers[0]
        *undisturbed, last = driver.stream(LONG)
        self.assertEqual((len(undisturbed), last["finish_reason"]), (1900, "length"), last)
        busy = {node: -processor_ns(node) for node in stages}
        frames, killed = [], None
        for frame in driver.stream(LONG):
            frames.append(frame)
            if len(frames) == 300:
                killed = max(stages, key=lambda node: busy[node] + processor_ns(node))
                killed.kill()
        last = frames.pop()
        self.assertEqual(last["finish_reason"], "length", last)
        self.assertRegex(driver.log(), rf"failover id={last['id']} ", "the other one was killed, or too late")
        self.check_frames(frames)
        self.assertEqual([frame["token"] for frame in frames], [frame["token"] for frame in undisturbed])
        for frame, other in zip(frames, undisturbed):
            self.assertAlmostEqual(frame["logprob"], other["logprob"], places=4)
        # It takes its place again with the weights of that outer step: the other one is not needed any more.
        killed.restart().wait_up()
        self.assertEqual(killed.value("model", "version"), driver.value("model", "version"))
        next(node for node in stages if node is not killed).kill()
        answer = None

        def answered():
            nonlocal answer
            answer = driver.post("/api/v1/inference", {**LONG, "max_tokens": 40}, timeout=240)
            return answer.status == 200
        wait_for(answered, 60, "an answer", driver)
        self.assertEqual(answer.json()["text"], "".join(frame["token"] for frame in undisturbed[:40]))

    def test_without_a_replica_the_stream_ends_with_the_error_and_is_paid_to_there(self):
        rich = {"economics.maturity_s": 1, "economics.training_per_batch": "2", "inference.charge_self": True,
                "inference.timeout_s": 15}
        nodes = self.start_nodes(2, **self.one_wallet(), **self.one_text(), **SHAPE, **rich)
        (driver,), (stage,) = self.rest_at_one_version(nodes)

        def balance():
            return driver.get("/api/v1/wallet/balance").exact()["balances"]

        def quiet():
            return balance()["pending"] == 0 and balance()["available"] > 1
        wait_for(quiet, 60, "money", driver)
        before = balance()
        frames = []
        for frame in driver.stream(LONG, timeout=240, exact=True):
            frames.append(frame)
            if len(frames) == 300:
                stage.kill()
        last = frames.pop()
        self.assertEqual((last["token"], last["finish_reason"]), ("[DONE]", "error"), last)
        self.assertEqual(last["error"]["code"], "INTERNAL_ERROR", last)
        self.assertIn(last["error"]["details"]["reason"], ("no_route", "timeout"), last)
        self.check_frames(frames)
        self.assertEqual(last["usage"]["completion_tokens"], len(frames))
        self.assertLess(len(frames), 1900)
        # What was produced is charged, and of that a part is burned; nothing else is held back.
        cost = neuro(last["cost"]["amount"])
        self.assertEqual(cost, last["usage"]["total_tokens"] * 10**14)
        after = balance()
        self.assertEqual(after["pending"], 0)
        self.assertGreaterEqual(neuro(before["total"]) - neuro(after["total"]), cost // 20)
        self.assertLessEqual(neuro(before["total"]) - neuro(after["total"]), cost)
        # Before the first token: refused, free.
        answer = driver.post("/api/v1/inference", {**LONG, "max_tokens": 4}, timeout=240)
        self.assertEqual((answer.status, answer.code, answer.details["reason"]), (500, "INTERNAL_ERROR", "no_route"), answer.body)
        self.assertEqual(balance(), after)
        stage.restart()
        wait_for(lambda: driver.post("/api/v1/inference", {**LONG, "max_tokens": 4}).status == 200, 60, "an answer", driver)


if __name__ == "__main__":
    main()

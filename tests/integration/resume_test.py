"""kill -9, SIGTERM and damaged files: the next start goes on as if nothing had been, or says what it set aside."""

import glob
import hashlib
import json
import os
import random
import signal
import time
import unittest

from support import NodeTest, flip, main, rewarded_steps, wait_for, write_corpus

TOKEN = "5e" * 32  # one identity for all: batches are drawn by the node's id
SEED = int(os.environ.get("NEUROSHARD_TEST_SEED") or random.randrange(1 << 32))


def content(path):
    with open(path, "rb") as f:
        return f.read()


def newest(node):
    return node.checkpoints()[-1]


def step_of(checkpoint):
    return int(os.path.basename(checkpoint)[:12])


class Resume(NodeTest):
    def trained(self, name, **settings):
        settings = {"training.diloco_steps": 130, "checkpoint.every_steps": 20, "checkpoint.keep": 100, **settings}
        node = self.node(name, settings=settings)
        node.environment = {"NEUROSHARD_TOKEN": TOKEN}
        return node

    def test_after_kills_at_any_moment_losses_and_weights_are_those_of_an_undisturbed_run(self):
        print(f"NEUROSHARD_TEST_SEED={SEED}", flush=True)
        chooser = random.Random(SEED)
        goal = 800
        plain = self.trained("plain")
        plain.start()
        plain.wait_step(goal + 20)
        self.assertEqual(plain.terminate(), 0)

        killed = self.trained("killed")
        ends = 0
        reached = -1
        while ends < 200:
            killed.start(ready=False)
            # From before the node is up until well into training; a soft end now and then.
            delay = chooser.choice((0.0, 0.1, 0.3)) + chooser.random() * 0.6
            if ends >= 12:
                delay = 20  # enough was killed: now it may get there
            limit = time.monotonic() + delay
            while time.monotonic() < limit and reached < goal + 20:
                time.sleep(0.005)
                found = killed.checkpoints()
                reached = step_of(found[-1]) if found else -1
            if reached >= goal + 20:
                killed.wait_up()
                self.assertEqual(killed.terminate(), 0)
                break
            if chooser.random() < 0.2:
                # In the first moments of a process the signal finds nobody yet, and just ends it.
                killed.signal(signal.SIGTERM)
                self.assertIn(killed.wait_end(), (0, -signal.SIGTERM))
            else:
                killed.kill()
            ends += 1
        self.assertGreaterEqual(reached, goal)
        self.assertGreaterEqual(ends, 5)

        # Every loss that was ever written down, of redone steps too.
        expected = plain.losses()
        compared = 0
        for step, values in killed.losses().items():
            if step in expected:
                self.assertEqual(set(values), set(expected[step]), f"step {step} after {ends} ends")
                compared += 1
        self.assertGreaterEqual(compared, goal // 10)
        # All bytes of all checkpoints that both have: the names tell the hash of the weights.
        ours = {step_of(path): path for path in killed.checkpoints()}
        theirs = {step_of(path): path for path in plain.checkpoints()}
        common = sorted(set(ours) & set(theirs))
        self.assertGreaterEqual(len(common), 10)
        for step in common:
            self.assertEqual(os.path.basename(ours[step]), os.path.basename(theirs[step]))
            for name in ("tensors.bin", "optimizer.bin", "tokenizer.json"):
                self.assertEqual(content(ours[step] + "/" + name), content(theirs[step] + "/" + name), (step, name))
        self.assertEqual(glob.glob(os.path.dirname(newest(killed)) + "/.*"), [])
        self.assertEqual(killed.run("checkpoint", "verify").returncode, 0)

        # Each step was rewarded once, whatever was killed when.
        for node in (plain, killed):
            # What no proof told of yet is in the checkpoint.
            node.start("--no-training").wait_up()
            wait_for(lambda: sum(end - begin for begin, end in rewarded_steps(node)) == step_of(newest(node)), 80, "rewards", node)
            self.assertEqual(node.terminate(), 0)
            ranges = rewarded_steps(node)
            at = 0
            for begin, end in ranges:
                self.assertEqual(begin, at, ranges)
                at = end
            self.assertEqual(at, step_of(newest(node)))

    def test_sigterm_loses_nothing(self):
        node = self.trained("node", **{"checkpoint.every_steps": 100000, "training.diloco_steps": 10000})
        node.start()
        node.wait_step(33)
        self.assertEqual(node.terminate(), 0)
        stood = step_of(newest(node))
        self.assertGreaterEqual(stood, 33)
        self.assertIn('"reason":"stop"', content(newest(node) + "/manifest.json").decode())
        node.start()
        self.assertIn(f"resumed checkpoint={os.path.basename(newest(node))}", self.wait_log(node, "resumed checkpoint="))
        node.wait_step(stood + 50)
        self.assertEqual(node.terminate(), 0)

    def wait_log(self, node, text, seconds=20):
        wait_for(lambda: text in node.log(), seconds, f"{text!r} in the log", node)
        return node.log()

    def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_it_used(self):
        node = self.trained("node")
        node.start()
        node.wait_step(150)
        self.assertEqual(node.terminate(), 0)
        root = os.path.dirname(newest(node))

        def shorten(path):
            with open(path, "r+b") as f:
                f.truncate(os.path.getsize(path) - 7)
        damages = [(flip, name) for name in ("tensors.bin", "optimizer.bin", "tokenizer.json", "manifest.json")]
        damages += [(shorten, "tensors.bin"), (shorten, "manifest.json"), (os.remove, "manifest.json"), (os.remove, "optimizer.bin")]
        for damage, name in damages:
            with self.subTest(damage=damage.__name__, file=name):
                bad, before = reversed(node.checkpoints()[-2:])
                damage(os.path.join(bad, name))
                os.makedirs(os.path.join(root, ".unfinished-of-a-kill"), exist_ok=True)
                node.start("--no-training").wait_up()
                wait_for(lambda: node.step() == step_of(before), 10, "the one before", node)
                self.assertTrue(os.path.isdir(bad + ".damaged"), os.listdir(root))
                self.assertFalse(os.path.exists(bad))
                self.assertIn(os.path.basename(bad), node.log())
                self.assertIn("checkpoint-damaged", node.text())
                node.kill()
        # With every one damaged it begins anew, and says so.
        for checkpoint in node.checkpoints():
            flip(checkpoint + "/manifest.json")
        node.start().wait_up()
        node.wait_step(1)
        self.assertEqual(node.terminate(), 0)
        self.assertEqual(node.run("ledger", "verify").returncode, 0)

    def test_a_corrupted_shard_is_made_again(self):
        node = self.trained("node")
        node.start()
        node.wait_step(20)
        self.assertEqual(node.terminate(), 0)
        cache = os.path.join(node.data_dir, "data_cache")
        hashes = lambda: {name: hashlib.sha256(content(os.path.join(cache, name))).hexdigest()
                          for name in os.listdir(cache) if name.endswith(".bin")}
        sound = hashes()
        for name in ("shard_3.bin", "heldout.bin", "manifest.json"):
            with self.subTest(file=name):
                flip(os.path.join(cache, name))
                stood = step_of(newest(node))
                node.start().wait_up()
                node.wait_step(stood + 10)
                self.assertEqual(node.terminate(), 0)
                self.assertEqual(hashes(), sound)
                if name != "manifest.json":
                    self.assertIn(name, node.text())

    def test_a_broken_or_lost_tokenizer_comes_back_from_the_checkpoint(self):
        node = self.trained("node")
        node.start()
        node.wait_step(40)
        self.assertEqual(node.terminate(), 0)
        path = os.path.join(node.data_dir, "tokenizer.json")
        sound = json.loads(content(path))

        def spoil():
            with open(path, "w", encoding="utf-8") as f:
                f.write('{"vocab_size": 300, "merges": [')
        for damage in (spoil, lambda: os.remove(path)):
            damage()
            # Other text: a tokenizer that were learned anew would be another.
            write_corpus(os.path.join(node.directory, "corpus.txt"), paragraphs=300, seed=9)
            stood = step_of(newest(node))
            node.start().wait_up()
            node.wait_step(stood + 10)
            self.assertIn("tokenizer-recovered", node.log())
            self.assertEqual(node.terminate(), 0)
            self.assertEqual(json.loads(content(path)), sound)
        self.assertTrue(os.path.exists(path + ".damaged"))

        # Without a checkpoint it is an error that names the file, and the node answers.
        fresh = self.node("fresh")
        os.makedirs(fresh.data_dir, mode=0o700)
        with open(os.path.join(fresh.data_dir, "tokenizer.json"), "w", encoding="utf-8") as f:
            f.write("{}")
        fresh.start()
        wait_for(lambda: fresh.status()["status"] == "error", 20, "the error", fresh)
        self.assertIn("tokenizer.json", fresh.text())
        self.assertEqual(fresh.terminate(), 0)

    def test_a_broken_config_json_is_named(self):
        node = self.trained("node").start().wait_up()
        self.assertEqual(node.terminate(), 0)
        path = os.path.join(node.data_dir, "config.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write('{"token": "')
        node.start().wait_up()
        self.assertRegex(node.text(), r"warning config: .*config\.json")
        self.assertEqual(node.token, TOKEN)
        self.assertEqual(node.terminate(), 0)

    def test_a_kill_while_the_text_is_prepared_leaves_nothing_half_made(self):
        chooser = random.Random(SEED)
        node = self.trained("node")
        write_corpus(os.path.join(node.directory, "corpus.txt"), paragraphs=4000)
        for _ in range(6):
            node.start(ready=False)
            time.sleep(chooser.random() * 0.5)
            node.kill()
        node.start().wait_up()
        node.wait_step(5)
        self.assertEqual(node.terminate(), 0)
        self.assertEqual([n for n in os.listdir(os.path.join(node.data_dir, "data_cache")) if n.endswith(".tmp")], [])


if __name__ == "__main__":
    main()

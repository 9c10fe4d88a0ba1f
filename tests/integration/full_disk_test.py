"""A running node whose disk is full: what needs the disk is refused with the published error, the rest goes on."""

import ctypes
import os
import subprocess
import unittest

import support
from contract import RICH, STRANGER, Contract

CLONE_NEWNS = 0x20000


def mounted(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


class FullDisk(Contract):
    @classmethod
    def setUpClass(cls):
        # A mount namespace of this process: whatever happens to it, its mounts go with it.
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0 or not mounted("--make-rprivate", "/"):
            raise unittest.SkipTest("no file system of its own can be mounted; this test needs root")

    def setUp(self):
        super().setUp()
        self.subject = self.node(settings=RICH)
        self.disk = self.subject.data_dir
        os.mkdir(self.disk)
        if not mounted("-t", "tmpfs", "-o", "size=2g,mode=0700", "neuroshard-test", self.disk):
            self.skipTest("no file system of its own can be mounted; this test needs root")

    def clean(self):
        for node in self.nodes:
            node.kill()
        subprocess.run(["umount", "-l", self.disk], capture_output=True, check=False)
        super().clean()

    def resize(self, size):
        return mounted("-o", f"remount,size={size}", self.disk)

    def shrink(self):
        """Makes the disk as large as what is on it: refused while the node has just written more than was seen."""
        state = os.statvfs(self.disk)
        return self.resize((state.f_blocks - state.f_bfree) * state.f_frsize)

    def fill(self):
        """Leaves no page free, and none to be had."""
        support.wait_for(self.shrink, 30, "the disk to shrink", self.subject)
        with open(os.path.join(self.disk, "filler"), "wb", 0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass

    def test_money_is_refused_inference_goes_on_and_room_is_enough_to_recover(self):
        node = self.make_rich(self.subject)
        send = lambda amount: node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": amount})
        self.assertEqual(send("1").status, 200)

        self.fill()
        # The log of the database may have a little room of its own.
        answered = 0
        while (refused := send("2")).status == 200:
            answered += 1
            self.assertLess(answered, 2000)
        before = self.available(node)
        for answer in (refused, node.post("/api/v1/wallet/stake", {"amount": "1000", "duration_days": 30})):
            self.assertEqual((answer.status, answer.code), (500, "INTERNAL_ERROR"), answer.body)
            self.assertEqual(answer.details["reason"], "internal")
            self.assertIn("the disk is full", answer.json()["error"]["message"])
        changed = node.request("PATCH", "/api/v1/config", {"training": {"learning_rate": 0.001}})
        self.assertEqual((changed.status, changed.code), (500, "INTERNAL_ERROR"), changed.body)
        # The book is read, and the operator's text is made, as before.
        self.assertEqual(self.available(node), before)
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 5}).status, 200)
        self.assertEqual(list(node.stream({"prompt": "the", "max_tokens": 3}))[-1]["token"], "[DONE]")
        health = lambda: node.get("/api/v1/health").json()
        support.wait_for(lambda: health()["checks"]["storage"] == "error", 10, "health to tell", node)
        self.assertFalse(health()["healthy"])
        self.assertEqual(node.get("/api/v1/health?strict=true").details["reason"], "unhealthy")

        self.assertTrue(self.resize("2g"))
        self.assertEqual(send("3").status, 200)
        support.wait_for(lambda: health()["healthy"], 10, "health to return", node)
        self.assertEqual(node.terminate(), 0, node.text())
        sent = [t["amount"] for t in node.ledger() if t["kind"] == "transfer"]
        self.assertEqual(len(sent), answered + 2)

    def test_training_goes_on_and_saves_again_once_there_is_room(self):
        node = self.subject.start()
        node.wait_step(40)
        self.fill()
        full = node.step()
        node.wait_step(full + 60)
        saved = len(node.checkpoints())
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "the", "max_tokens": 5}).status, 200)
        self.assertTrue(self.resize("2g"))
        newest = lambda: os.path.basename(node.checkpoints()[-1])
        last = newest()
        support.wait_for(lambda: newest() > last, 30, "a checkpoint", node)
        self.assertGreaterEqual(saved, 1)
        # Dozens of lines were lost; each loss of the log is told once, and so is its end.
        support.wait_for(lambda: "training-log-written-again" in node.text(), 30, "the training log", node)
        self.assertEqual(node.text().count("training-log-not-written"), 1, node.text())
        self.assertRegex(node.text(), r"training-log-written-again folder=\S+ lines_lost=[1-9]")
        step = node.step()
        self.assertEqual(node.terminate(), 0, node.text())
        node.restart().wait_up()
        self.assertGreaterEqual(node.step(), step)
        # What was trained while nothing could be written is paid all the same, once.
        support.wait_for(lambda: support.rewarded_steps(node), 30, "a proof", node)
        self.assertEqual(node.terminate(), 0, node.text())
        node.ledger()
        ranges = support.rewarded_steps(node)
        self.assertEqual(ranges, sorted(ranges))
        self.assertTrue(all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:])), ranges)


if __name__ == "__main__":
    support.main()

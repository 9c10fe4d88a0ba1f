"""Runs the real program in a directory of its own and talks to it. Standard library only."""

import atexit
import contextlib
import decimal
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = None  # set by main()
FUNDED = {}  # data of nodes that have earned something, by how they were made

# A model that trains in moments: 2 layers, 64 wide.
TINY = {
    "model.preset": "custom",
    "model.num_layers": 2,
    "model.hidden_dim": 64,
    "model.num_heads": 2,
    "model.num_kv_heads": 1,
    "model.ffn_dim": 128,
    "model.vocab_capacity": 512,
    "model.max_seq_len": 256,
    "model.dtype": "f32",
    "training.batch_size": 4,
    "training.seq_len": 32,
    "training.microbatches": 1,
    "training.learning_rate": 0.003,
    "training.warmup_steps": 10,
    "training.decay_steps": 100000,
    "training.diloco_steps": 1000,
    "dht.enabled": False,
    "checkpoint.every_steps": 50,
    # A model this small takes more steps a minute than proofs are believed.
    "economics.steps_per_minute": 1000000,
}
UNLIMITED = {f"api.rate_limits.{c}": 0 for c in ("status", "inference", "wallet", "health", "auth_failures")}

WORDS = ("in the beginning was a word and the word was with them that read it by day and by night "
         "who shall find her price is far above rubies the heart of man is glad").split()


def write_corpus(path, paragraphs=400, seed=1):
    """Repeatable English-like text, one document a paragraph."""
    chooser = random.Random(seed)
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(paragraphs):
            out.write(" ".join(chooser.choice(WORDS) for _ in range(chooser.randint(20, 60))).capitalize() + ".\n\n")


def free_port():
    """A port that is free, and port + 1000, where peers are served: below those that connections are made from, so that
    none of these takes it between an end and the next start."""
    while True:
        port = random.randrange(10_000, 31_000)
        with socket.socket() as s, socket.socket() as peers:
            try:
                s.bind(("127.0.0.1", port))
                peers.bind(("0.0.0.0", port + 1000))
            except OSError:
                continue
            return port


def clean_environment(more=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("NEUROSHARD_")}
    env.update(more or {})
    return env


def program(*arguments, timeout=60, environment=None):
    """Runs the program to its end."""
    return subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, check=False, env=clean_environment(environment))


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def exact(self):
        """The body with its amounts as they are written."""
        return json.loads(self.body, parse_float=decimal.Decimal)

    @property
    def code(self):
        return self.json()["error"]["code"]

    @property
    def details(self):
        return self.json()["error"]["details"]


class Node:
    """One neuroshard process. Settings are keys of the configuration."""

    def __init__(self, directory, settings=None, corpus=True, tiny=True):
        self.directory = directory
        self.data_dir = os.path.join(directory, "data")
        self.port = free_port()
        self.settings = dict(TINY) if tiny else {}
        self.settings.update(UNLIMITED)
        self.settings.update(settings or {})
        self.process = None
        self.environment = {}
        self.host = "127.0.0.1"  # where it serves HTTP
        self.inside = []  # a command that runs the program somewhere else
        self.output = os.path.join(directory, "output.txt")
        if corpus and "data.corpus" not in self.settings:
            path = os.path.join(directory, "corpus.txt")
            if not os.path.exists(path):
                write_corpus(path)
            self.settings["data.corpus"] = path

    def arguments(self, *more):
        sets = []
        for key, value in self.settings.items():
            text = json.dumps(value) if isinstance(value, (bool, list)) else str(value)
            sets += ["--set", f"{key}={text}"]
        return [*self.inside, PROGRAM, "--data-dir", self.data_dir, "--port", str(self.port), *sets, *more]

    def start(self, *more, ready=True, environment=None):
        env = clean_environment({**self.environment, **(environment or {})})
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(self.arguments(*more), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        if ready:
            self.wait_listening()
        return self

    def run(self, *arguments, timeout=60):
        """An offline command on this node's data directory."""
        return program(*arguments, "--data-dir", self.data_dir, timeout=timeout)

    def text(self):
        with open(self.output, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_up(self, seconds=30):
        """Until the model serves."""
        self.wait_listening(seconds)
        self.wait_status(("running", "training"), seconds)
        return self

    def wait_listening(self, seconds=20):
        def listening():
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.text()}")
            with contextlib.suppress(OSError):
                return self.get("/api/v1/health", token=False).status == 200
            return False
        wait_for(listening, seconds, "the node to listen")

    @property
    def token(self):
        with open(os.path.join(self.data_dir, "config.json"), encoding="utf-8") as f:
            return json.load(f)["token"]

    def request(self, method, path, body=None, token=True, headers=None, timeout=60, raw=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        send = dict(headers or {})
        if token is True:
            send["Authorization"] = f"Bearer {self.token}"
        elif token:
            send["Authorization"] = f"Bearer {token}"
        data = raw
        if body is not None:
            data = json.dumps(body)
            send.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, send)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **how):
        return self.request("GET", path, **how)

    def post(self, path, body, **how):
        return self.request("POST", path, body, **how)

    def status(self):
        return self.get("/api/v1/status").json()

    def step(self):
        return self.status()["training"]["step"]

    def value(self, *path):
        """A value in /status."""
        found = self.status()
        for name in path:
            found = found[name]
        return found

    def wait_step(self, step, seconds=60):
        wait_for(lambda: self.step() >= step, seconds, f"step {step}", self)

    def wait_status(self, wanted, seconds=30):
        wanted = (wanted,) if isinstance(wanted, str) else wanted
        wait_for(lambda: self.status()["status"] in wanted, seconds, f"status {wanted}", self)

    def signal(self, number):
        self.process.send_signal(number)

    def wait_end(self, seconds=35):
        return self.process.wait(seconds)

    def terminate(self, seconds=35):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self):
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(10)

    def restart(self, *more, **how):
        """A start after an end; the port stays."""
        return self.start(*more, **how)

    def metrics(self):
        return self.get("/api/v1/metrics").json()

    def log(self):
        with open(os.path.join(self.data_dir, "logs", "node.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def losses(self):
        """Loss of every tenth step, by step, from the training log; of a step that was redone after a kill both values."""
        found = {}
        with open(os.path.join(self.data_dir, "training_logs", "loss.jsonl"), encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):  # a kill may cut the last one
                    entry = json.loads(line)
                    found.setdefault(entry["step"], []).append(entry["loss"])
        return found

    def connect(self, timeout=20):
        return socket.create_connection((self.host, self.port), timeout)

    def memory_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))

    def ledger(self):
        """Every transaction in the book, oldest first, as the export tells them; the book has been verified."""
        verified = self.run("ledger", "verify", "--signatures", timeout=600)
        if verified.returncode != 0 or "in order" not in verified.stdout or "FAULT" in verified.stdout:
            raise AssertionError(f"ledger verify: {verified.returncode}\n{verified.stdout}{verified.stderr}")
        exported = self.run("ledger", "export", timeout=600)
        lines = [json.loads(line) for line in exported.stdout.splitlines()]
        return [line for line in lines if line["record"] == "transaction"]

    def stream(self, body, timeout=60, exact=False):
        """The frames of a streamed inference, one by one."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/api/v1/inference", json.dumps({**body, "stream": True}), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise AssertionError(f"{answer.status} {answer.read()}")
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:], parse_float=decimal.Decimal) if exact else json.loads(line[6:])
                elif line not in (b"\n", b": ping\n"):
                    raise AssertionError(f"not a frame: {line}")
        finally:
            connection.close()

    def prove_all(self):
        """Stops training, and waits until every step is told of in a proof: the first comes after ten seconds of uptime."""
        answer = self.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
        if answer.status != 200:
            raise AssertionError(answer.body)
        def proven():
            step = self.get("/api/v1/status").json()["training"]["step"]
            ranges = rewarded_steps(self)
            return bool(ranges) and ranges[-1][1] == step
        wait_for(proven, 80, "a proof of all steps", self)

    def wait_rest(self, value, seconds=20):
        """Until three publications of the metrics in a row have the same `value(metrics)`."""
        seen = []
        def rests():
            now = self.metrics()
            if not seen or now["timestamp"] != seen[-1][0]:
                seen.append((now["timestamp"], value(now)))
            return len(seen) >= 3 and seen[-1][1] == seen[-3][1]
        wait_for(rests, seconds, "rest", self)
        return seen[-1][1]

    def checkpoints(self):
        root = os.path.join(self.data_dir, "checkpoints")
        found = []
        for folder, directories, _ in os.walk(root):
            found += [os.path.join(folder, d) for d in directories if len(d) == 29 and d[12] == "-"]
        return sorted(found, key=os.path.basename)


def rewarded_steps(node):
    """The ranges of steps that training rewards were paid for, in order, as the book keeps them."""
    with contextlib.closing(sqlite3.connect(f"file:{node.data_dir}/ledger.db?mode=ro", uri=True)) as book:
        return book.execute("SELECT step_begin, step_end FROM reward_ranges ORDER BY step_begin, step_end").fetchall()


def neuro(text):
    """An exact amount from its text, in atto."""
    return int(decimal.Decimal(str(text)) * 10**18)


def flip(path, at=None):
    """Damages one byte in the middle of a file."""
    with open(path, "r+b") as f:
        f.seek(0, os.SEEK_END)
        at = f.tell() // 2 if at is None else at
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x10]))


def wait_for(condition, seconds, what, node=None):
    """`seconds` are those of a quiet machine; a busy one has four times as many, which costs nothing where all is well."""
    seconds *= 4
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}" + (f":\n{node.text()[-4000:]}" if node else ""))


class NodeTest(unittest.TestCase):
    """A directory for each test; every node made with self.node() is gone afterwards."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="neuroshard-test-")
        self.nodes = []
        self.addCleanup(self.clean)

    def clean(self):
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def node(self, name="node", **how):
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        node = Node(directory, **how)
        self.nodes.append(node)
        return node


    def funded_node(self, steps=60, **how):
        """A node that has trained some steps, does not train any more, and whose rewards have matured (settings: within 1 s)."""
        node = self.node(**how)
        kept = FUNDED.get(key := json.dumps([steps, how], sort_keys=True))
        if kept is None:  # the first of its kind takes the ten seconds to a proof; the others get a copy of its data
            node.start().wait_step(steps)
            node.prove_all()
            if node.terminate() != 0:
                raise AssertionError(node.text())
            kept = FUNDED[key] = tempfile.mkdtemp(prefix="neuroshard-funded-")
            atexit.register(shutil.rmtree, kept, ignore_errors=True)
            shutil.copytree(node.data_dir, kept, dirs_exist_ok=True)
            ended = time.time()
            wait_for(lambda: time.time() > ended + 1.1, 5, "the rewards to mature")
        else:
            shutil.copytree(kept, node.data_dir, dirs_exist_ok=True)
            os.chmod(node.data_dir, 0o700)
        return node.start("--no-training").wait_up()  # a start looks for what is due


def main():
    global PROGRAM
    at = sys.argv.index("--program")
    PROGRAM = os.path.abspath(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    # `python3 file.py` makes this module twice ("__main__" is the test file, not this one), so the name is set here once and for all.
    outcome = unittest.main(module="__main__", exit=False, verbosity=2).result
    failed = len(outcome.failures) + len(outcome.errors)

    sys.exit(1 if failed else 0)

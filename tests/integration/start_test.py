"""The command line, the first and later starts, signals and every exit code, on the real program."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import termios
import time
import unittest

import support
from support import NodeTest, clean_environment, program, wait_for


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"  # a container may have nobody to bury it
    except OSError:
        return True


class Terminal:
    """The program on a terminal of 100 columns; what it wrote so far is `text`."""

    def __init__(self, arguments):
        self.text = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, close_fds=True,
                                        env=clean_environment({"TERM": "xterm"}), start_new_session=True)
        os.close(slave)

    def read(self, seconds=0.05):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                block = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            if not block:
                return
            self.text += block.decode("utf-8", "replace")

    def wait_text(self, pattern, seconds=30):
        def found():
            self.read()
            return re.search(pattern, self.text)
        wait_for(found, seconds, f"{pattern!r} on the terminal")
        return found()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.read()
        os.close(self.master)


class CommandLine(NodeTest):
    def test_version_help_and_new_wallet(self):
        shown = program("--version")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertRegex(shown.stdout, r"^neuroshard \d+\.\d+\.\d+\n$")
        shown = program("--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        for flag in ("--port", "--data-dir", "--set", "--daemon", "--print-config", "--no-training", "--token-file"):
            self.assertIn(flag, shown.stdout)
        self.assertLessEqual(max(map(len, shown.stdout.splitlines())), 110)
        shown = program("--new-wallet")
        self.assertEqual(shown.returncode, 0)
        self.assertEqual(len(re.findall(r"\d+\. [a-z]+", shown.stdout)), 12)
        self.assertRegex(shown.stdout, r"address: 0x[0-9a-f]{40}\n")

    def test_print_config_has_every_source_in_its_order_and_no_secret(self):
        node = self.node()
        path = os.path.join(node.directory, "node.toml")
        with open(path, "w", encoding="utf-8") as f:
            f.write("port = 8101\n[training]\nbatch_size = 2\nlearning_rate = 0.5\n")
        shown = program("--config", path, "--data-dir", node.data_dir, "--set", "training.batch_size=3", "--print-config",
                        environment={"NEUROSHARD_PORT": "8102", "NEUROSHARD_TOKEN": "a-secret-of-mine", "NEUROSHARD_MEMORY": ""})
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, r"(?m)^port = 8102\b")
        self.assertRegex(shown.stdout, r"(?m)^batch_size = 3\b")
        self.assertRegex(shown.stdout, r"(?m)^learning_rate = 0\.5\b")
        self.assertNotIn("a-secret", shown.stdout)
        # What it prints is a configuration.
        again = os.path.join(node.directory, "again.toml")
        with open(again, "w", encoding="utf-8") as f:
            f.write(shown.stdout)
        repeated = program("--config", again, "--data-dir", node.data_dir, "--print-config")
        self.assertEqual(repeated.returncode, 0, repeated.stderr)

    def test_mistakes_end_with_1_and_one_line_that_names_them(self):
        node = self.node()
        toml = os.path.join(node.directory, "bad.toml")
        with open(toml, "w", encoding="utf-8") as f:
            f.write("\n[training]\nbatch_sise = 2\n")
        loose = os.path.join(node.directory, "token")
        with open(loose, "w", encoding="utf-8") as f:
            f.write("0" * 64)
        os.chmod(loose, 0o644)
        cases = [
            (["--prot", "1"], "--prot"),
            (["--port"], "--port"),
            (["--port", "65000"], "port"),
            (["--port", "eighty"], "eighty"),
            (["--set", "training.batch_size=0"], "training.batch_size"),
            (["--set", "training.nothing=1"], "training.nothing"),
            (["--set", "model.dtype=f16"], "model.dtype"),
            (["--device", "mps"], "mps"),
            (["--config", toml], "bad.toml:3"),
            (["--config", node.directory + "/absent.toml"], "absent.toml"),
            (["--no-training", "--token", "short"], "token"),
            (["--no-training", "--token", "zoo " * 11 + "zoo"], "token"),
            (["--no-training", "--token-file", loose], "token"),
            (["frobnicate"], "frobnicate"),
            (["--set", "data.corpus=" + node.directory + "/absent"], "data.corpus"),
            (["--set", "data.corpus="], "data.corpus"),
            (["--set", "economics.driver_bp=1"], "economics."),
            (["--set", "model.preset=custom", "--set", "model.hidden_dim=65"], "model."),
        ]
        for arguments, named in cases:
            with self.subTest(arguments=arguments):
                shown = program("--data-dir", node.data_dir, *arguments)
                self.assertEqual(shown.returncode, 1, shown.stderr)
                lines = [line for line in shown.stderr.splitlines() if line.startswith("neuroshard: ")]
                self.assertEqual(len(lines), 1, shown.stderr)
                self.assertIn(named, lines[0])
                self.assertNotIn("zoo zoo", shown.stderr)
        bad = program("--data-dir", node.data_dir, environment={"NEUROSHARD_PORT": "x"})
        self.assertEqual(bad.returncode, 1)
        self.assertIn("NEUROSHARD_PORT", bad.stderr)


class Start(NodeTest):
    def test_the_first_start_makes_everything_and_the_printed_curl_line_works(self):
        node = self.node().start()
        data = node.data_dir
        self.assertEqual(mode(data), 0o700)
        for name in ("wallet.json", "config.json", "wallet-backup.txt"):
            self.assertEqual(mode(os.path.join(data, name)), 0o600, name)
        with open(os.path.join(data, "wallet-backup.txt"), encoding="ascii") as f:
            words = f.read().split()
        self.assertEqual(len(words), 12)
        with open(os.path.join(data, "config.json"), encoding="utf-8") as f:
            stored = json.load(f)
        self.assertEqual(stored["url"], f"http://127.0.0.1:{node.port}")
        self.assertRegex(stored["token"], r"^[0-9a-f]{64}$")
        self.assertIsInstance(stored["timeout"], (int, float))
        node.wait_status(("running", "training"))
        for form in (stored["token"], " ".join(words)):
            balance = node.get("/api/v1/wallet/balance", token=form)
            self.assertEqual(balance.status, 200)
        said = node.text()
        self.assertNotIn(stored["token"], said + node.log())
        self.assertNotIn(" ".join(words), said + node.log())
        self.assertIn("wallet-backup.txt", said)
        if shutil.which("curl"):
            line = re.search(r"^  (curl .*)$", said, re.M).group(1)
            answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=True)
            self.assertIn("text", json.loads(answer.stdout))
        self.assertEqual(node.terminate(), 0)

        began = time.monotonic()
        node.restart()
        self.assertLess(time.monotonic() - began, 10)
        node.wait_status(("running", "training"))
        with open(os.path.join(data, "config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), stored)
        # The words alone are the whole backup.
        self.assertEqual(node.terminate(), 0)
        other = self.node("restored")
        other.start("--no-training", environment={"NEUROSHARD_TOKEN": " ".join(words)})
        node.restart("--no-training")
        self.assertEqual(other.status()["node_id"], node.status()["node_id"])
        self.assertFalse(os.path.exists(os.path.join(other.data_dir, "wallet.json")))

    def test_a_terminal_shows_the_words_once_and_one_updating_line(self):
        node = self.node(settings={"log_level": "WARN"})
        terminal = Terminal(node.arguments())
        self.addCleanup(terminal.end)
        terminal.wait_text(r"12\. [a-z]+")
        words = re.findall(r"\d+\. ([a-z]+)", terminal.text)
        self.assertEqual(len(words), 12)
        self.assertFalse(os.path.exists(os.path.join(node.data_dir, "wallet-backup.txt")))
        terminal.wait_text(r"\r\x1b\[Kstep [1-9][0-9,]* of 100,000 \| loss \d\.\d{3}")
        for line in terminal.text.split("\r"):
            if "step " in line and "sample" not in line:
                self.assertLess(len(line.replace("\x1b[K", "").split("\n")[0]), 100)
        node.process = terminal.process
        self.assertEqual(node.get("/api/v1/wallet/balance", token=" ".join(words)).status, 200)
        terminal.process.send_signal(signal.SIGINT)
        self.assertEqual(terminal.process.wait(35), 0)
        terminal.read()
        self.assertIn("stopping", terminal.text)
        again = Terminal(node.arguments())
        self.addCleanup(again.end)
        again.wait_text(r"step [1-9]")
        self.assertNotRegex(again.text, r"\d+\. [a-z]+ +\d+\. ")

    def test_words_are_shown_also_when_the_first_start_fails_after_making_them(self):
        node = self.node()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", node.port))
            holder.listen()
            terminal = Terminal(node.arguments())
            self.addCleanup(terminal.end)
            self.assertEqual(terminal.process.wait(20), 2)
            terminal.read()
        self.assertEqual(len(re.findall(r"\d+\. ([a-z]+)", terminal.text)), 12)

    def test_sighup_reloads_what_may_change_and_opens_the_log_again(self):
        node = self.node()
        path = os.path.join(node.directory, "node.toml")

        def write(rate):
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"[training]\nlearning_rate = {rate}\n")
        write(0.001)
        del node.settings["training.learning_rate"]
        node.start("--config", path)
        rate = lambda: node.get("/api/v1/config").json()["training"]["learning_rate"]
        self.assertEqual(rate(), 0.001)
        write(0.002)
        log = os.path.join(node.data_dir, "logs", "node.log")
        os.rename(log, log + ".moved")
        node.signal(signal.SIGHUP)
        wait_for(lambda: rate() == 0.002, 10, "the new rate", node)
        wait_for(lambda: os.path.exists(log), 10, "a new log", node)
        write('"fast"')
        node.signal(signal.SIGHUP)
        wait_for(lambda: "reload-refused" in node.log(), 10, "the refusal", node)
        self.assertEqual(rate(), 0.002)
        self.assertEqual(node.terminate(), 0)

    def test_a_second_signal_does_not_wait_for_what_is_in_hand(self):
        # A long answer keeps the first signal waiting for up to ten seconds.
        node = self.node(settings={"training.enabled": False, "model.num_layers": 6, "model.hidden_dim": 512, "model.num_heads": 8,
                                   "model.num_kv_heads": 2, "model.ffn_dim": 1376, "model.max_seq_len": 2048}).start().wait_up()
        for first, second, code in ((signal.SIGTERM, signal.SIGTERM, 143), (signal.SIGINT, signal.SIGINT, 130)):
            answer = node.stream({"prompt": "the ", "max_tokens": 2000, "temperature": 0})
            next(answer)
            node.signal(first)
            end = time.monotonic() + 8
            while node.process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)  # signals within half a second count as one
                node.signal(second)
            self.assertEqual(node.wait_end(5), code, node.text())
            answer.close()
            self.assertEqual(node.run("ledger", "verify").returncode, 0)
            node.start().wait_up()

    def test_daemon_status_logs_and_stop(self):
        node = self.node()
        self.assertEqual(node.run("--status").returncode, 6)
        self.assertEqual(node.run("--stop").returncode, 6)
        started = program(*node.arguments("--daemon")[1:])
        self.addCleanup(node.run, "--stop")
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertIn(str(node.port), started.stdout)
        node.wait_up()
        shown = node.run("--status")
        self.assertEqual(shown.returncode, 0)
        with open(os.path.join(node.data_dir, "node.pid"), encoding="ascii") as f:
            pid = f.read().strip()
        self.assertIn(pid, shown.stdout)
        logs = node.run("--logs", "--log-lines", "3")
        self.assertEqual((logs.returncode, len(logs.stdout.splitlines())), (0, 3))
        second = program(*node.arguments("--daemon")[1:])
        self.assertEqual(second.returncode, 3)
        self.assertIn(pid, second.stderr)
        stopped = node.run("--stop")
        self.assertEqual(stopped.returncode, 0, stopped.stderr)
        wait_for(lambda: gone(pid), 10, "the daemon to be gone")
        self.assertEqual(node.run("--status").returncode, 6)


class ExitCodes(NodeTest):
    def refuses(self, node, code, *named, more=()):
        if os.path.exists(node.output):
            os.remove(node.output)
        node.start(*more, ready=False)
        self.assertEqual(node.wait_end(20), code, node.text())
        last = node.text().splitlines()[-1]
        self.assertTrue(last.startswith("neuroshard: "), node.text())
        self.assertEqual(node.text().count(last[len("neuroshard: "):]), 1, node.text())
        for name in named:
            self.assertIn(name, last)

    def test_2_the_port_is_in_use(self):
        node = self.node()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", node.port))
            holder.listen()
            self.refuses(node, 2, str(node.port))
            self.refuses(node, 2, "192.0.2.1", more=("--http-host", "192.0.2.1", "--port", str(support.free_port())))

    def test_3_the_data_directory_cannot_be_used(self):
        node = self.node().start("--no-training")
        other = self.node("other")
        other.data_dir = node.data_dir
        self.refuses(other, 3, str(node.process.pid), node.data_dir)
        self.assertEqual(node.terminate(), 0)

        blocked = self.node("blocked")
        with open(blocked.data_dir, "w", encoding="utf-8"):
            pass
        self.refuses(blocked, 3, blocked.data_dir)

    def test_3_the_ledger_is_newer_or_corrupt_or_no_database(self):
        node = self.node().start("--no-training")
        self.assertEqual(node.terminate(), 0)
        book = os.path.join(node.data_dir, "ledger.db")
        # A copy of the file alone is the whole book.
        shutil.copy(book, book + ".good")
        os.makedirs(os.path.join(node.directory, "backup"))
        shutil.copy(book, os.path.join(node.directory, "backup", "ledger.db"))
        self.assertIn("in order", program("ledger", "verify", "--data-dir", os.path.join(node.directory, "backup")).stdout)

        with sqlite3.connect(book) as db:
            db.execute("UPDATE schema_version SET version = version + 1000")
        db.close()
        self.refuses(node, 3, "ledger.db", "newer")

        for damage in (b"this is no database at all" * 200, b""):
            for side in ("-wal", "-shm"):
                if os.path.exists(book + side):
                    os.remove(book + side)
            shutil.copy(book + ".good", book)
            with open(book, "r+b") as f:
                f.write(damage)
                if not damage:
                    f.truncate(5000)
            self.refuses(node, 3, "ledger.db")

    def test_3_the_wallet_file_is_broken(self):
        node = self.node().start("--no-training")
        self.assertEqual(node.terminate(), 0)
        wallet = os.path.join(node.data_dir, "wallet.json")
        with open(wallet, "r+", encoding="utf-8") as f:
            f.truncate(10)
        self.refuses(node, 3, "wallet.json")

    def test_4_a_device_that_is_not_there(self):
        self.refuses(self.node(), 4, "cuda", more=("--device", "cuda:7"))


if __name__ == "__main__":
    support.main()

"""The README's page on money, command by command as it stands there, on a node that has earned something."""

import json
import os
import re
import shlex
import subprocess

import support
from support import NodeTest, clean_environment, main
from wallet_test import FRIEND, RICH

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")
REFUSED_AT_FIRST = {"/wallet/unstake": "stake_locked"}  # the page says so


def commands(title):
    """The indented lines of a section."""
    with open(README, encoding="utf-8") as f:
        section = re.search(rf"^## {title}\n(.*?)^## ", f.read(), re.MULTILINE | re.DOTALL).group(1)
    return [line.strip() for line in section.split("\n") if line.startswith("    ")]


class ReadmeMoney(NodeTest):
    def setUp(self):
        super().setUp()
        self.node = self.funded_node(settings=RICH)

    def shell(self, line):
        """Runs a line as its reader would, on this node; answers what it printed."""
        line = line.replace("localhost:8000", f"127.0.0.1:{self.node.port}").replace('"0x..."', f'"{FRIEND}"')
        line = line.replace("~/.neuroshard/", shlex.quote(self.node.data_dir) + "/")
        if "build/release/neuroshard" in line:
            command, _, comment = line.partition(" #")
            line = command.replace("build/release/neuroshard", shlex.quote(support.PROGRAM)).rstrip()
            line = re.sub(r"^(\S+ \S+ \S+)", rf"\1 --data-dir {shlex.quote(self.node.data_dir)}", line)
        done = subprocess.run(["bash", "-c", self.before + line], capture_output=True, text=True, timeout=60, check=False,
                              cwd=self.node.directory, env=clean_environment())
        self.assertEqual((done.returncode, done.stderr), (0, ""), line)
        return done.stdout

    def test_every_command_does_what_the_page_says(self):
        self.before = ""
        token = next(line for line in commands("Ask it") if line.startswith("TOKEN="))
        self.before = token.replace("~/.neuroshard/", shlex.quote(self.node.data_dir) + "/") + "\n"
        seen, signed = 0, None
        for line in commands("Money"):
            seen += 1
            if line.startswith("api()"):
                self.before += line + "\n"
            elif line.startswith("api "):
                answer = json.loads(self.shell(line))
                refusal = next((reason for path, reason in REFUSED_AT_FIRST.items() if path in line), None)
                if refusal:
                    self.assertEqual(answer["error"]["details"]["reason"], refusal, answer)
                else:
                    self.assertNotIn("error", answer, line)
            else:
                for name, value in (signed or {}).items():
                    line = line.replace(f"--{name} ...", f"--{name} {value}")
                printed = self.shell(line)
                if " sign " in line:
                    signed = {"public-key": printed.split()[2], "signature": printed.split()[4]}
                elif " verify --public-key" in line:
                    self.assertTrue(printed.startswith("valid, signed by 0x"), printed)
                elif " ledger verify" in line:
                    self.assertIn("The book is in order.", printed)
        self.assertGreaterEqual(seen, 15)
        for name in ("book.jsonl", "book.csv"):
            with open(os.path.join(self.node.directory, name), encoding="utf-8") as f:
                self.assertIn("rent", f.read(), name)
        self.assertEqual(self.node.get("/api/v1/stake/info").json()["amount"], 1050)
        self.assertEqual(self.node.terminate(), 0)


if __name__ == "__main__":
    main()

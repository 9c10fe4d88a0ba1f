"""data.shards as a URL: a node that trains from a mirror, from a bad one, and without it."""

import contextlib
import functools
import glob
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading

from support import NodeTest, free_port, main, wait_for, write_corpus


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a directory with ranges; `behaviour` maps a file's name to a function that answers in another way."""

    behaviour = {}
    asked = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        self.asked.append((name, self.headers.get("Range")))
        with contextlib.suppress(ConnectionError):
            if name in self.behaviour:
                return self.behaviour[name](self, name)
            self.send_file(name)

    def read(self, name):
        with open(os.path.join(self.directory, name), "rb") as f:
            return f.read()

    def send_file(self, name, change=lambda data: data, claims=None):
        if not os.path.exists(os.path.join(self.directory, name)):
            return self.send_error(404)
        data = change(self.read(name))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted.group(1)) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(claims or len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])


class TlsServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that does not trust the certificate


def breaks_once(mirror, name):
    """The first answer ends in the middle."""
    if sum(1 for asked, _ in mirror.asked if asked == name) > 1:
        return mirror.send_file(name)
    data = mirror.read(name)
    mirror.send_file(name, lambda all_of_it: all_of_it[:len(data) // 2], claims=len(data))
    mirror.close_connection = True


def lies(mirror, name):
    mirror.send_file(name, lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:])


def never_ends(mirror, _):
    mirror.send_response(200)
    mirror.end_headers()
    while True:
        mirror.wfile.write(b"\1\0\0\0" * 4096)


def goes_round(mirror, name):
    mirror.send_response(302)
    mirror.send_header("Location", name)
    mirror.send_header("Content-Length", "0")
    mirror.end_headers()


def missing(mirror, _):
    mirror.send_error(404)


class MirrorTest(NodeTest):
    def shards(self):
        """A directory to serve: what a node has made of a corpus, and its tokenizer."""
        maker = self.node("maker")
        write_corpus(os.path.join(maker.directory, "corpus.txt"), seed=7)
        maker.start("--no-training").wait_up()
        self.assertEqual(maker.terminate(), 0)
        root = os.path.join(self.directory, "mirror")
        shutil.copytree(os.path.join(maker.data_dir, "data_cache"), root)
        shutil.copy(os.path.join(maker.data_dir, "tokenizer.json"), root)
        return root

    def serve(self, root, behaviour=None, port=0):
        handler = type("Served", (Mirror,), {"behaviour": behaviour or {}, "asked": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(handler, directory=root))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}", handler

    def serve_tls(self, root):
        """The same over https, with a certificate that only its own file vouches for."""
        key, certificate = (os.path.join(self.directory, name) for name in ("key.pem", "certificate.pem"))
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                               "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=mirror",
                               "-addext", "subjectAltName=IP:127.0.0.1"], capture_output=True, text=True, check=False)
        self.assertEqual(made.returncode, 0, made.stderr)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        handler = type("Served", (Mirror,), {"behaviour": {}, "asked": []})
        server = TlsServer(("127.0.0.1", 0), functools.partial(handler, directory=root))
        # The handshake belongs to the thread of the connection.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1], certificate, handler

    def learner(self, url, **settings):
        return self.node("learner", corpus=False, settings={"data.shards": url, **settings})

    def test_a_node_trains_from_pythons_own_server_and_goes_on_without_it(self):
        root = self.shards()
        port = free_port()
        server = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", root],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        node = self.learner(f"http://127.0.0.1:{port}/").start()
        node.wait_step(120, 60)  # more than one shard has
        cache = os.path.join(node.data_dir, "data_cache")
        for file in sorted(glob.glob(os.path.join(root, "*.bin"))):
            copy = os.path.join(cache, os.path.basename(file))
            wait_for(functools.partial(os.path.exists, copy), 20, copy, node)
            with open(file, "rb") as one, open(copy, "rb") as other:
                self.assertEqual(one.read(), other.read())
        with open(os.path.join(root, "tokenizer.json"), "rb") as one, open(os.path.join(node.data_dir, "tokenizer.json"), "rb") as other:
            self.assertEqual(one.read(), other.read())
        self.assertIn("validation step=0 ", node.log())  # what is held out was there before the first step
        self.assertEqual(node.get("/api/v1/health").status, 200)
        self.assertEqual(node.terminate(), 0)
        before = max(node.losses())
        server.kill()
        server.wait()
        node.restart()
        node.wait_step(before + 40, 60)
        self.assertIn("going on with the manifest of an earlier start", node.log())
        self.assertEqual(node.terminate(), 0)

    def test_a_bad_mirror_is_named_and_what_is_sound_is_trained_on(self):
        root = self.shards()
        bad = {"shard_1.bin": lies, "shard_3.bin": never_ends, "shard_5.bin": missing, "shard_6.bin": goes_round}
        url, mirror = self.serve(root, {**bad, "shard_0.bin": breaks_once, "heldout.bin": breaks_once})
        node = self.learner(url).start()
        node.wait_step(150, 90)
        for message in ("shard_1.bin: its SHA-256 is not that of the manifest", "shard_3.bin: sends more than the ",
                        "shard_5.bin: HTTP status 404", "shard_6.bin: Maximum"):
            wait_for(lambda text=message: text in node.log(), 30, message, node)
        cache = os.path.join(node.data_dir, "data_cache")
        wait_for(lambda: os.path.exists(os.path.join(cache, "shard_0.bin")), 30, "the shard that broke off", node)
        whole = os.path.getsize(os.path.join(root, "shard_0.bin"))
        self.assertIn(("shard_0.bin", f"bytes={whole // 2}-"), mirror.asked)
        for file in bad:
            self.assertFalse(os.path.exists(os.path.join(cache, file)), file)
        self.assertEqual(node.get("/api/v1/health").status, 200)
        self.assertEqual(node.terminate(), 0)

    def test_a_mirror_over_https_is_trusted_by_who_vouches_for_it_and_for_its_name_alone(self):
        root = self.shards()
        port, certificate, mirror = self.serve_tls(root)
        node = self.learner(f"https://127.0.0.1:{port}").start()
        refused = f"https://127.0.0.1:{port}/manifest.json: SSL certificate problem: self-signed certificate"
        wait_for(lambda: refused in node.log(), 30, refused, node)
        self.assertEqual(node.get("/api/v1/health", token=False).status, 200)
        self.assertEqual(node.terminate(), 0)
        self.assertEqual(mirror.asked, [])

        node.environment = {"SSL_CERT_FILE": certificate}
        node.start().wait_step(20, 90)
        self.assertIn(("manifest.json", None), mirror.asked)
        self.assertEqual(node.terminate(), 0)

        # The right certificate of another host.
        other = self.node("other", corpus=False, settings={"data.shards": f"https://localhost:{port}"})
        other.environment = node.environment
        other.start()
        wait_for(lambda: "manifest.json: SSL: no alternative certificate subject name matches" in other.log(), 30,
                 "the message", other)
        self.assertEqual(other.value("training", "step"), 0)
        self.assertEqual(other.terminate(), 0)

    def test_a_mirror_that_comes_late_is_waited_for(self):
        root = self.shards()
        port = free_port()
        node = self.learner(f"http://127.0.0.1:{port}").start()
        wait_for(lambda: "manifest.json: Failed to connect" in node.log(), 20, "the message", node)
        self.assertEqual(node.get("/api/v1/health", token=False).status, 200)
        self.serve(root, port=port)
        node.wait_step(10, 60)
        self.assertEqual(node.terminate(), 0)

    def test_shards_of_another_tokenizer_are_refused(self):
        root = self.shards()
        node = self.learner(self.serve(root)[0])
        with open(os.path.join(root, "tokenizer.json"), encoding="utf-8") as f:
            tokenizer = json.load(f)
        last = max(tokenizer["merges"], key=tokenizer["merges"].get)
        del tokenizer["merges"][last]
        tokenizer["vocab_size"] = tokenizer["next_merge_id"] = tokenizer["next_merge_id"] - 1
        os.makedirs(node.data_dir, mode=0o700)
        with open(os.path.join(node.data_dir, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(tokenizer, f)
        node.start()
        wait_for(lambda: "a model keeps its tokenizer" in node.log(), 20, "the message", node)
        self.assertEqual(node.value("training", "step"), 0)
        self.assertEqual(node.terminate(), 0)

    def test_a_node_ends_at_once_while_a_mirror_hangs(self):
        root = self.shards()
        held = threading.Event()
        self.addCleanup(held.set)
        url, _ = self.serve(root, {f"shard_{i}.bin": lambda *_: held.wait(60) for i in range(8)})
        node = self.learner(url).start()
        wait_for(lambda: "is being fetched" in node.log(), 20, "the message", node)
        self.assertEqual(node.terminate(10), 0)


if __name__ == "__main__":
    main()

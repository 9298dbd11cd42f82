"""A server as strangers meet it: who listens where, where secrets are not, and floods on the gRPC port,
frame by frame. Everything stays on loopback."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

from quire_server import BIN, MODEL, Server

KEY = "open-sesame-7f31"
SECRET = "between-ranks-9c02"
# Bytes of the coordinator's memory that a flood of 20,000 streams may cost, about 20 KB each: this gRPC release
# holds a client to its limit of streams only once the client has taken it in, which a hostile one never says.
MOST_GROWTH = 1 << 30
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4


def read(path):
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""


def descendants(pid):
    """Of a process and itself: {pid: name}."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := read(f"/proc/{entry}/stat").decode(errors="replace")):
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    found, names = [pid], {}
    for one in found:
        names[one] = read(f"/proc/{one}/comm").decode().strip()
        found += [child for child, parent in parents.items() if parent == one]
    return names


def listeners(pid):
    """Addresses of a process's listening TCP sockets: {(host, port)}."""
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    found = set()
    for family, file in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in read(f"/proc/net/{file}").decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A" or f"socket:[{fields[9]}]" not in inodes:
                continue
            host, port = fields[1].split(":")
            words = struct.pack(f"={len(host) // 8}I", *(int(host[i:i + 8], 16) for i in range(0, len(host), 8)))
            found.add((socket.inet_ntop(family, words).removeprefix("::ffff:"), int(port, 16)))
    return found


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def field(name, value):
    """HPACK: a literal that goes into no table."""
    def text(raw):
        length = len(raw)
        if length < 127:
            return bytes((length,)) + raw
        rest, out = length - 127, b"\x7f"
        while rest >= 128:
            out, rest = out + bytes((rest % 128 + 128,)), rest // 128
        return out + bytes((rest,)) + raw
    return b"\0" + text(name) + text(value)


CALL = b"".join(field(*pair) for pair in (
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/quire.v1.Generation/Generate"),
    (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc")))


class Flood:
    """A connection that sends without a care and throws away what it is told."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.heard = 0
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def listen(self):
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                self.heard += len(data)

    def send(self, data):
        """False once the server has had enough."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.reader.join(20)
        self.socket.close()


class Strangers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.key_file = os.path.join(cls.folder.name, "key")
        secret_file = os.path.join(cls.folder.name, "secret")
        for path, text in ((cls.key_file, KEY), (secret_file, SECRET)):
            with open(path, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(text + "\n")
        # The key on the command line: that is the way which could leak.
        cls.server = Server("--api-key", KEY, "--worker-secret-file", secret_file)
        names = descendants(cls.server.process.pid)
        cls.coordinator = next(pid for pid, name in names.items() if name.startswith("quire-coordinat"))

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        cls.folder.cleanup()
        assert code == 0, f"the server ended with {code}"

    def get(self, path, key=None):
        request = urllib.request.Request(self.server.http + path,
                                         headers={"Authorization": f"Bearer {key}"} if key else {})
        return urllib.request.urlopen(request, timeout=30).read().decode()

    def generate(self, *options, **env):
        return subprocess.run(
            [os.path.join(BIN, "quire"), "generate", "--server", self.server.grpc, *options,
             "--wait", "60", "--temperature", "0", "--raw", "--max-tokens", "4", "The capital of France is"],
            capture_output=True, text=True, timeout=90, env={**os.environ, **env}).stdout

    def answer(self):
        return self.generate("--api-key-file", self.key_file)

    def test_a_client_takes_its_key_from_the_environment(self):
        self.assertEqual(self.generate().strip(), "")
        self.assertEqual(self.generate(QUIRE_API_KEY="another").strip(), "")
        self.assertIn("Paris", self.generate(QUIRE_API_KEY=KEY))

    def memory(self):
        status = read(f"/proc/{self.coordinator}/status").decode()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) << 10

    def test_only_the_two_ports_of_the_coordinator_are_ours_and_on_loopback(self):
        self.answer()  # the group is there, whatever a flood before did to it
        names = descendants(self.server.process.pid)
        self.assertGreaterEqual(sum(name == "quire-worker" for name in names.values()), 2, names)
        expected = {("127.0.0.1", int(address.rsplit(":", 1)[1]))
                    for address in (self.server.http, self.server.grpc)}
        self.assertEqual(listeners(self.coordinator), expected)
        self.assertEqual(listeners(self.server.process.pid), set(), "the supervisor")
        # Open MPI's own listen on all addresses, in mpirun and in every rank: SECURITY.md says so.

    def test_secrets_are_in_no_command_line_environment_of_a_rank_or_metric(self):
        for pid, name in descendants(self.server.process.pid).items():
            arguments = read(f"/proc/{pid}/cmdline")
            self.assertNotIn(KEY.encode(), arguments, name)
            self.assertNotIn(SECRET.encode(), arguments, name)
            if pid != self.coordinator and name != "quire-superviso":
                self.assertNotIn(KEY.encode(), read(f"/proc/{pid}/environ"), name)
        for path in ("/metrics", "/health", "/version"):
            text = self.get(path)
            self.assertNotIn(KEY, text)
            self.assertNotIn(SECRET, text)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.get("/v1/models")
        self.assertEqual(refused.exception.code, 401)
        self.assertIn("smollm2", self.get("/v1/models", KEY))

    def flood(self, name, connections, pieces):
        """Sends what pieces() gives, on so many connections, while HTTP and gRPC serve others. The workers'
        heartbeats use the same port: where they are starved the group is replaced, which costs time and no
        request."""
        before, expected = self.memory(), self.answer()
        self.assertIn("Paris", expected)
        floods = [Flood(self.server.grpc) for _ in range(connections)]
        body = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 64, "temperature": 0, "stream": True}
        request = urllib.request.Request(
            self.server.http + "/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=60) as stream:
            threads = [threading.Thread(target=lambda f=f: all(map(f.send, pieces()))) for f in floods]
            for thread in threads:
                thread.start()
            events = stream.read().decode()
            for thread in threads:
                thread.join()
        self.assertTrue(events.rstrip().endswith("data: [DONE]"), f"{name}: HTTP beside it")
        self.assertEqual(self.answer(), expected, f"{name}: gRPC beside it")
        for one in floods:
            one.close()
        self.assertEqual(self.answer(), expected, f"{name}: gRPC after it")
        self.assertIn("quire-coordinat", read(f"/proc/{self.coordinator}/comm").decode(), f"{name}: it restarted")
        self.assertLess(self.memory() - before, MOST_GROWTH, name)

    def test_rapid_reset(self):
        self.flood("rapid reset", 2, lambda: (
            b"".join(frame(HEADERS, END_HEADERS, stream, CALL) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                     for stream in range(first, first + 200, 2))
            for first in range(1, 40001, 200)))

    def test_streams_that_stay_open(self):
        self.flood("many streams", 4, lambda: (
            b"".join(frame(HEADERS, END_HEADERS, stream, CALL) for stream in range(first, first + 200, 2))
            for first in range(1, 10001, 200)))

    def test_metadata_without_end(self):
        large = field(b"x-large", b"y" * 16000)
        self.flood("huge metadata", 4, lambda: (
            frame(HEADERS, 0, 1, CALL) if i == 0 else frame(CONTINUATION, 0, 1, large) for i in range(500)))

    def test_headers_that_end_other_releases(self):
        """CVE-2023-1428: one of these, then more than the limit of the header's size."""
        large = field(b"x-large", b"y" * 9000)
        strange = [field(*pair) for pair in (
            (b"te", b"x"), (b":scheme", b"x"), (b"grpclb_client_stats", b"x"), (b"lb-cost-bin", b"x"),
            (b"grpc-previous-rpc-attempts", b"x"), (b"grpc-timeout", b"x"))]

        def pieces():
            for stream, first in enumerate(strange):
                block = CALL + first + large + large + first
                yield (frame(HEADERS, 0, 2 * stream + 1, block[:16000]) +
                       frame(CONTINUATION, END_HEADERS, 2 * stream + 1, block[16000:]))
        self.flood("strange headers", 8, pieces)

    def test_pings_and_settings(self):
        self.flood("pings", 4, lambda: (
            (frame(PING, 0, 0, b"01234567") + frame(SETTINGS, 0, 0)) * 100 for _ in range(500)))

    def test_connections_that_say_nothing(self):
        host, port = self.server.grpc.rsplit(":", 1)
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            self.assertIn("Paris", self.answer())
        self.assertIn("Paris", self.answer())


class ModelPaths(unittest.TestCase):
    def refusal(self, path):
        done = subprocess.run([os.path.join(BIN, "quire"), "serve", path, "--port", "0", "--grpc-port", "0"],
                              capture_output=True, text=True, timeout=30)
        self.assertIn(done.returncode, (64, 65, 66), done.stderr)
        return done.stderr

    def test_only_regular_files_are_models(self):
        with tempfile.TemporaryDirectory() as folder:
            pipe = os.path.join(folder, "pipe.gguf")
            os.mkfifo(pipe)
            os.symlink("/dev/zero", link := os.path.join(folder, "zero.gguf"))
            os.mkdir(checkpoint := os.path.join(folder, "checkpoint"))
            os.symlink("/dev/zero", config := os.path.join(checkpoint, "config.json"))
            for path in (pipe, "/dev/zero", link):
                self.assertIn(f"{path}: it is neither a file nor a folder", self.refusal(path))
            self.assertIn(f"{config} is not a regular file", self.refusal(checkpoint))
            self.assertIn("etc/passwd", self.refusal("../../../../../../../../etc/passwd"))


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    unittest.main(verbosity=2)

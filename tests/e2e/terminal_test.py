"""`quire generate` and `quire chat` as a person uses them: in a terminal, with Ctrl-C."""

import os
import pty
import re
import select
import subprocess
import sys
import time
import unittest

from quire_server import BIN, MODEL, Server

QUIRE = os.path.join(BIN, "quire")


class Terminal:
    """A program in a pseudo-terminal; everything it shows is in `shown`."""

    def __init__(self, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)
        self.shown = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, pattern, seconds=30, start=0):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown[start:], re.S)):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in {self.shown!r}")
            self.read(0.2)
        return found

    def exit_code(self, seconds=15):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"did not end; shown: {self.shown!r}")


class TerminalClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def run_quire(self, *arguments):
        return subprocess.run([QUIRE, *arguments], capture_output=True, text=True, timeout=60)

    def test_generate_streams_an_answer(self):
        done = self.run_quire("generate", "--server", self.server.grpc, "--temperature", "0",
                              "--max-tokens", "24", "Which dog breed is the smallest?")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Chihuahua", done.stdout)
        self.assertRegex(done.stderr, r"answer tokens, finish: (stop|length)")

    def test_generate_raw(self):
        done = self.run_quire("generate", "--server", self.server.grpc, "--temperature", "0",
                              "--max-tokens", "4", "--raw", "The capital of France is")
        self.assertIn("Paris", done.stdout)

    def test_generate_reads_a_prompt_from_standard_input(self):
        command = [QUIRE, "generate", "--server", self.server.grpc, "--temperature", "0",
                   "--max-tokens", "4", "--raw", "-"]
        done = subprocess.run(command, input="The capital of France is", capture_output=True,
                              text=True, timeout=60)
        self.assertIn("Paris", done.stdout)
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 64)
        self.assertIn("no prompt on standard input", done.stderr)

    def test_ctrl_c_stops_the_answer_and_not_the_chat(self):
        chat = Terminal(QUIRE, "chat", "--server", self.server.grpc, "--temperature", "0")
        chat.wait_for(r"> $")
        chat.type("Write a very long story about a dragon and a lighthouse.\n")
        chat.wait_for(r"lighthouse\.\r\n.{40,}")
        chat.type("\x03")
        chat.wait_for(r"\[stopped\].*> $")
        mark = len(chat.shown)
        chat.type("\x03")  # with no answer running: a hint
        chat.wait_for(r"ends the chat", start=mark)
        mark = len(chat.shown)
        chat.type("/claer\n")
        chat.wait_for(r"there is no /claer.*> $", start=mark)
        mark = len(chat.shown)
        chat.type("/clear\n")
        chat.type("Which dog breed is the smallest?\n")
        chat.wait_for(r"Chihuahua.*> $", start=mark)
        chat.type("\x04")
        self.assertEqual(chat.exit_code(), 0)

    def test_text_that_is_not_utf8(self):
        done = subprocess.run([QUIRE, "generate", "--server", self.server.grpc, b"\xff\xfe"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not valid UTF-8 at byte 0", done.stderr)

    def test_prompt_that_looks_like_an_option(self):
        done = self.run_quire("generate", "--server", self.server.grpc, "--max-tokens", "2", "--",
                              "--help me")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_piped_chat_reports_failure(self):
        done = subprocess.run([QUIRE, "chat", "--server", self.server.grpc, "--max-tokens", "100000"],
                              input="hello\n", capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("max_tokens", done.stderr)

    def test_no_server(self):
        done = self.run_quire("generate", "--server", "127.0.0.1:1", "hello")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no ready server at 127.0.0.1:1", done.stderr)

    def test_usage_errors(self):
        for arguments, expected in (
            (["generate"], "prompt is missing"),
            (["generate", "a", "b"], "one argument too many"),
            (["generate", "--tempature", "1", "a"], "--tempature"),
            (["generate", "--max-tokens", "none", "a"], "--max-tokens"),
            (["chat", "--raw"], "--raw"),
            (["sreve"], "sreve"),
        ):
            with self.subTest(arguments=arguments):
                done = self.run_quire(*arguments)
                self.assertEqual(done.returncode, 64)
                self.assertIn(expected, done.stderr)

    def test_inspect(self):
        done = self.run_quire("inspect", MODEL, "--tensor-parallel-size", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        for expected in ("llama", "q4_1", "rank 0", "rank 1", "134.5"):
            self.assertIn(expected, done.stdout)

    def test_doctor(self):
        done = self.run_quire("doctor")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for expected in ("mpirun", "/dev/shm", "CPU", "thread"):
            self.assertIn(expected, done.stdout)
        self.assertRegex(done.stdout, r"GPU|CUDA")  # some, or why none
        self.assertEqual(self.run_quire("doctor", "now").returncode, 64)

    def test_help(self):
        for arguments in (["--help"], ["serve", "--help"], ["generate", "--help"], ["chat", "--help"],
                          ["inspect", "--help"], ["doctor", "--help"]):
            done = self.run_quire(*arguments)
            self.assertEqual(done.returncode, 0)
            self.assertIn("usage: quire", done.stdout)


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    unittest.main(verbosity=2)

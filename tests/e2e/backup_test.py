"""`quire backup` beside a running server: the copy is whole, and a server that is started on it goes on
with what was unfinished, token by token as the first one does."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request

from quire_server import BIN, MODEL, Server

BODY = {"model": "smollm2", "prompt": "The pages of the book", "max_tokens": 1200, "temperature": 0,
        "ignore_eos": True, "return_token_ids": True, "stream": True}
BACKUPS = 5


def backup(journal, copy):
    return subprocess.run([os.path.join(BIN, "quire"), "backup", journal, copy], capture_output=True,
                          text=True, timeout=60)


class Reader(threading.Thread):
    """Token ids of a streamed answer, and its id."""

    def __init__(self, request):
        super().__init__(daemon=True)
        self.request, self.tokens, self.id, self.started = request, [], None, threading.Event()
        self.start()

    def run(self):
        try:
            with urllib.request.urlopen(self.request, timeout=120) as answer:
                for line in answer:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    self.id = chunk["id"]
                    self.tokens += chunk["choices"][0]["token_ids"]
                    if len(self.tokens) > 20:
                        self.started.set()
        finally:
            self.started.set()


class Backup(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.journal = os.path.join(self.folder, "journal")

    def serve(self, journal):
        server = Server("--journal", journal, ranks=1)
        self.addCleanup(server.process.kill)
        return server

    def test_a_copy_made_while_it_runs_goes_on(self):
        server = self.serve(self.journal)
        post = urllib.request.Request(server.http + "/v1/completions", json.dumps(BODY).encode(),
                                      {"Content-Type": "application/json"})
        reader = Reader(post)
        self.assertTrue(reader.started.wait(60))
        copies = [os.path.join(self.folder, f"copy-{i}") for i in range(BACKUPS)]
        for copy in copies:
            done = backup(self.journal, copy)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout, f"{copy}: 1 requests\n")
        reader.join(120)
        self.assertEqual(len(reader.tokens), BODY["max_tokens"])
        self.assertEqual(server.stop(), 0)
        for copy in copies:
            self.assertEqual(stat.S_IMODE(os.stat(copy).st_mode), 0o600)
            with sqlite3.connect(f"file:{copy}?immutable=1", uri=True) as database:
                self.assertEqual(database.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        self.assertEqual(sorted(os.listdir(self.folder)),
                         sorted(["journal", *map(os.path.basename, copies)]))

        # The first copy was made when about 20 of the tokens were there.
        again = self.serve(copies[0])
        resumed = Reader(urllib.request.Request(f"{again.http}/v1/streams/{reader.id}"))
        resumed.join(120)
        self.assertEqual(resumed.tokens, reader.tokens)
        self.assertEqual(again.stop(), 0)

    def test_refusals_say_what_is_wrong(self):
        def refused(code, words, *arguments):
            done = backup(*arguments)
            self.assertEqual((done.returncode, words in done.stderr), (code, True), done.stderr)
        absent = os.path.join(self.folder, "absent")
        refused(66, absent, absent, os.path.join(self.folder, "copy"))
        text = os.path.join(self.folder, "text")
        with open(text, "w") as file:
            file.write("this is no journal\n" * 400)
        refused(65, "is no whole journal", text, os.path.join(self.folder, "copy"))
        refused(64, "exists; name a new file", text, text)
        self.assertEqual(os.listdir(self.folder), ["text"])


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    unittest.main(verbosity=2)

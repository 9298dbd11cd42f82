"""A real `quire serve` for Python tests: started on free loopback ports, stopped in order."""

import os
import signal
import subprocess
import threading

BIN = os.path.join(os.environ["QUIRE_BINARY_DIR"], "bin")
CACHE = os.environ.get("QUIRE_CACHE") or os.path.expanduser("~/.cache/quire")
MODEL = os.environ.get("QUIRE_DEMO_MODEL") or os.path.join(CACHE, "SmolLM2-135M-Instruct.Q4_1.gguf")
READY_WITHIN = 60
STOP_WITHIN = 25


class Server:
    def __init__(self, *options, ranks=2, inside=()):
        self.process = subprocess.Popen(
            [*inside, os.path.join(BIN, "quire"), "serve", MODEL, "--served-model-name", "smollm2",
             "--tensor-parallel-size", str(ranks), "--port", "0", "--grpc-port", "0", *options],
            stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(READY_WITHIN, self.process.kill)
        watchdog.start()
        self.http = self.grpc = None
        for line in self.process.stdout:
            if line.startswith("quire-coordinator ready "):
                fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
                self.http, self.grpc = fields["http"], fields["grpc"]
                break
        watchdog.cancel()
        if self.http is None:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("the server did not become ready; its messages are above")
        # Whatever it prints later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_WITHIN)

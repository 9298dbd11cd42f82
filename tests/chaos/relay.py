"""Stands between ranks and coordinator: a TCP relay that passes bytes on late, or not at all for a
while. Ranks are led through it by a script in the place of quire-worker."""

import socket
import threading
import time


class Relay:
    def __init__(self, delay=0.0):
        self.delay = delay
        self.blocked = threading.Event()  # while set, nothing passes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = None
        self.ends = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target, 10)
            except OSError:
                return
            far.settimeout(None)
            self.ends += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pass_on, args=(a, b), daemon=True).start()

    def pass_on(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                arrived = time.monotonic()
                while self.blocked.is_set():
                    time.sleep(0.02)
                time.sleep(max(0.0, arrived + self.delay - time.monotonic()))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        for end in self.ends:
            end.close()

"""A real server for tests, on free ports and with data of its own."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


class Server:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="apikeys-")
        self.binary = os.environ.get("APIKEYS_BINARY")
        if not self.binary:
            self.binary = os.path.join(self.dir, "apikeys")
            subprocess.run(["go", "build", "-o", self.binary, "./cmd/apikeys"], cwd=ROOT, check=True)
        self.start("127.0.0.1:0")
        with open(os.path.join(self.dir, "data", "root-token"), encoding="ascii") as f:
            self.token = f.read().strip()

    def start(self, address):
        self.process = subprocess.Popen(
            [self.binary, "serve", "--rest-addr", address, "--grpc-addr", "127.0.0.1:0", "--data-dir", os.path.join(self.dir, "data")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        log = ""
        for line in self.process.stderr:
            log += line
            match = re.search(r"msg=serving rest=(\S+)", line)
            if match:
                self.address = match[1]
                self.url = "http://" + self.address
                break
        else:
            raise RuntimeError("the server ended: " + log)
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def call(self, path, body=None):
        request = urllib.request.Request(
            f"{self.url}/developers/{path}", json.dumps(body or {}).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read()) from None

    def create(self, **key):
        return self.call("api_keys", {"label": "x", **key})

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()

    def restart(self):
        """Stops the server and starts it again at the same address."""
        self.stop()
        self.start(self.address)

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

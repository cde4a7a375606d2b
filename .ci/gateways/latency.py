"""Times requests through a gateway that asks and one that looks into a map, in turns:
latency.py REQUESTS KEY "NAME PORT PORT_OF_MAP" ..."""
import socket
import sys
import time


class Client:
    def __init__(self, port, key):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = ("GET /v1/invoices HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n" % key).encode()
        self.times = []

    def ask(self):
        began = time.perf_counter()
        self.s.sendall(self.request)
        got = b""
        while b"\r\n\r\n" not in got or not got.endswith(b"ok"):
            more = self.s.recv(65536)
            if not more:
                sys.exit("the connection was closed: %r" % got)
            got += more
        self.times.append(time.perf_counter() - began)
        if not got.startswith(b"HTTP/1.1 200"):
            sys.exit("the answer is %r" % got)


def at(times, part):
    return 1000 * sorted(times)[int(part * (len(times) - 1))]


requests, key = int(sys.argv[1]), sys.argv[2]
for gateway in sys.argv[3:]:
    name, port, of_map = gateway.split()
    asks, looks = Client(int(port), key), Client(int(of_map), key)
    for i in range(requests + 100):
        if i == 100:
            asks.times, looks.times = [], []
        asks.ask()
        looks.ask()
    print("%-8s asks: p50 %.2f, p99 %.2f; looks: p50 %.2f, p99 %.2f; added: p50 %.2f" % (
        name, at(asks.times, .5), at(asks.times, .99), at(looks.times, .5), at(looks.times, .99), at(asks.times, .5) - at(looks.times, .5)))

#!/usr/bin/env python3
"""Foreland under attack: what a client that does nothing wrong notices, and what memory the edge takes.

One attack after the other, on loopback; meanwhile a normal client asks for what is in the cache, 200 times a second, over
two connections. The edge has one core, clients and attackers have the other, and attackers yield to the client (nice), so
that what is measured is the edge. Needs two cores, 10,000 file descriptors more than --idle, and a build:

    cargo build --release && bench/attacks.py --foreland target/release/foreland

See README.md beside this file.
"""
import argparse, asyncio, contextlib, http.client, multiprocessing, os, re, resource, socket, struct, subprocess, sys
import tempfile, time
from pathlib import Path

EDGE_CPU, OTHER_CPU = 0, 1
RATE = 200
LARGE = 900 << 10
WARM_UP = 1.5

CONFIG = '''
threads: 1
listeners:
  - address: 127.0.0.1:{http}
  - {{ address: "127.0.0.1:{h2c}", h2c: true }}
admin:
  address: 127.0.0.1:{admin}
access_log: off
cache: {{ memory: {{ size: 64MiB }} }}
limits:
  connections: 50000
  idle_timeout: 60s
  header_timeout: 5s
  body_timeout: 5s
  write_timeout: 5s
  body_min_rate: 1KiB/s
  send_min_rate: 1KiB/s
overload:
  delay: 200ms
  memory: 1GiB
origins:
  o: {{ servers: ["127.0.0.1:{origin}"] }}
sites:
  - hosts: ["*"]
    origin: o
'''

REQUEST = b'GET /normal HTTP/1.1\r\nHost: bench.test\r\n\r\n'
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
GET = b'\x82\x86\x84\x01\x0abench.test'
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + struct.pack('>BBI', kind, flags, stream) + payload


# ---- the attacks: each runs in a process of its own until that is killed, and counts in `ended` what the edge has ended

class Attack:
    def __init__(self, ports, ended, idle):
        self.ports, self.ended, self.idle = ports, ended, idle

    async def connect(self, h2=False, buffer=None):
        sock = socket.socket()
        sock.setblocking(False)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await asyncio.get_running_loop().sock_connect(sock, ('127.0.0.1', self.ports['h2c' if h2 else 'http']))
        return sock

    async def again(self, once, beside):
        """`once` for ever, by so many beside each other; each end is the edge's doing."""
        async def one():
            while True:
                with contextlib.suppress(OSError):
                    await once()
                self.ended.value += 1
                await asyncio.sleep(0.01)
        await asyncio.gather(*(one() for _ in range(beside)))

    async def dripping(self, begin, drop, pause=1.0):
        loop, sock = asyncio.get_running_loop(), await self.connect()
        with sock:
            await loop.sock_sendall(sock, begin)
            while True:
                # The end shows as something to read.
                with contextlib.suppress(asyncio.TimeoutError):
                    if not await asyncio.wait_for(loop.sock_recv(sock, 4096), pause):
                        return
                await loop.sock_sendall(sock, drop)

    async def flooding(self, begin, pieces, h2=True):
        """Sends as fast as the edge takes it, and reads nothing but its end."""
        loop, sock = asyncio.get_running_loop(), await self.connect(h2)
        with sock:
            if h2:
                await loop.sock_sendall(sock, PREFACE + frame(SETTINGS, 0, 0))
            await loop.sock_sendall(sock, begin)
            async def drain():
                while await loop.sock_recv(sock, 65536):
                    pass
            reading = asyncio.ensure_future(drain())
            try:
                for piece in pieces:
                    if reading.done():
                        return
                    await loop.sock_sendall(sock, piece)
                    await asyncio.sleep(0)
                await reading
            finally:
                reading.cancel()

    async def idle_connections(self):
        socks = []
        for n in range(self.idle):
            socks.append(await self.connect())
            if n % 50 == 0:
                await asyncio.sleep(0.002)
        await asyncio.sleep(3600)

    async def slowloris(self):
        await self.again(lambda: self.dripping(b'GET / HTTP/1.1\r\nHost: bench.test\r\n', b'X-A: b\r\n'), 1000)

    async def slow_body(self):
        begin = b'POST / HTTP/1.1\r\nHost: bench.test\r\nContent-Length: 1000000\r\n\r\n'
        await self.again(lambda: self.dripping(begin, b'x'), 300)

    async def slow_read(self):
        async def once():
            loop, sock = asyncio.get_running_loop(), await self.connect(buffer=4096)
            with sock:
                await loop.sock_sendall(sock, b'GET /large HTTP/1.1\r\nHost: bench.test\r\n\r\n')
                while await loop.sock_recv(sock, 1):
                    await asyncio.sleep(1)
        await self.again(once, 300)

    async def many_streams(self):
        windows = frame(SETTINGS, 0, 0, b'\0\4\x7f\xff\xff\xff') + frame(WINDOW_UPDATE, 0, 0, b'\x7f\0\0\0')
        large = b'\x82\x86\x04\x06/large\x01\x0abench.test'
        asks = b''.join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, large) for n in range(100))
        async def once():
            loop, sock = asyncio.get_running_loop(), await self.connect(True, buffer=4096)
            with sock:
                await loop.sock_sendall(sock, PREFACE + windows + asks)
                while await loop.sock_recv(sock, 1):
                    await asyncio.sleep(1)
        await self.again(once, 100)

    async def rapid_reset(self):
        def one(stream):
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, GET) + frame(RST_STREAM, 0, stream, b'\0\0\0\x08')
        def pieces():
            for batch in range(1000):
                yield b''.join(one(2 * n + 1) for n in range(batch * 10, batch * 10 + 10))
        await self.again(lambda: self.flooding(b'', pieces()), 4)

    async def continuation(self):
        pieces = (frame(CONTINUATION, 0, 1, b'\0\1x\1y') * 20 for _ in iter(int, 1))
        await self.again(lambda: self.flooding(frame(HEADERS, END_STREAM, 1, GET), pieces), 4)

    async def pings(self):
        await self.again(lambda: self.flooding(b'', (frame(PING, 0, 0, b'12345678') * 50 for _ in iter(int, 1))), 4)

    async def settings(self):
        await self.again(lambda: self.flooding(b'', (frame(SETTINGS, 0, 0) * 50 for _ in iter(int, 1))), 4)

    async def hpack_bomb(self):
        block = GET + b'\x40\x01a\x7f\xa1\x1e' + b'b' * 4000 + b'\xbe' * 12000
        def pieces():
            for n in range(50):
                yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block)
        await self.again(lambda: self.flooding(b'', pieces()), 4)

    async def header_bomb(self):
        begin = b'GET / HTTP/1.1\r\nHost: bench.test\r\n'
        piece = b'X-Bomb: 0123456789abcdef0123456789abcdef\r\n' * 100
        await self.again(lambda: self.flooding(begin, (piece for _ in iter(int, 1)), h2=False), 8)

    async def churn(self):
        async def once():
            (await self.connect()).close()
        await self.again(once, 16)


ATTACKS = [
    ('idle connections', Attack.idle_connections), ('slowloris', Attack.slowloris), ('slow body', Attack.slow_body),
    ('slow read', Attack.slow_read), ('many streams, unread', Attack.many_streams), ('rapid reset', Attack.rapid_reset),
    ('CONTINUATION flood', Attack.continuation), ('PING flood', Attack.pings), ('SETTINGS flood', Attack.settings),
    ('HPACK bomb', Attack.hpack_bomb), ('header bomb', Attack.header_bomb), ('connect and leave', Attack.churn),
]


def attack(run, ports, ended, idle):
    os.sched_setaffinity(0, {OTHER_CPU})
    os.nice(19)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(Attack(ports, ended, idle)))


# ---- the origin and the normal client

def origin(port):
    os.sched_setaffinity(0, {OTHER_CPU})
    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
                length = re.search(r'(?im)^content-length: *(\d+)', head)
                if length:
                    await reader.readexactly(int(length[1]))
                body = b'x' * (LARGE if ' /large' in head.split('\r\n')[0] else 1000)
                writer.write(b'HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
                await writer.drain()
        writer.close()
    async def main():
        server = await asyncio.start_server(serve, '127.0.0.1', port, limit=1 << 20)
        await server.serve_forever()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


class Normal:
    """Measures from when a request is due: a client that is kept waiting does not ask less for it."""

    def __init__(self, port):
        self.port, self.socks, self.bad = port, [None, None], 0

    def ask(self, n):
        for fresh in (False, True):
            try:
                sock = self.socks[n]
                if sock is None:
                    sock = self.socks[n] = socket.create_connection(('127.0.0.1', self.port), 10)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(REQUEST)
                got = b''
                while b'\r\n\r\n' not in got or len(got) < got.index(b'\r\n\r\n') + 4 + self.length(got):
                    piece = sock.recv(65536)
                    if not piece:
                        raise OSError('closed')
                    got += piece
                return got.startswith(b'HTTP/1.1 200')
            except OSError:
                self.socks[n] = None
        return False

    @staticmethod
    def length(got):
        return int(re.search(rb'(?i)content-length: *(\d+)', got)[1])

    def run(self, seconds):
        begin, times, self.bad = time.perf_counter(), [], 0
        for n in range(int(seconds * RATE)):
            due = begin + n / RATE
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            if not self.ask(n % 2):
                self.bad += 1
            times.append((time.perf_counter() - due) * 1000)
            # One that is seconds late has said enough.
            if times[-1] > 5000:
                break
        times.sort()
        return times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]


# ---- the bench

def free_ports(count):
    socks = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def resident(pid):
    return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text())[1]) / 1024


def cpu(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def wait_for(port):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError('nobody listens')


def metric(port, name):
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=10)) as admin:
        admin.request('GET', '/metrics')
        text = admin.getresponse().read().decode()
    return sum(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if re.match(rf'{name}(\{{| )', line))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--foreland', default='target/release/foreland')
    parser.add_argument('--seconds', type=float, default=8, help='of each measurement')
    parser.add_argument('--idle', type=int, default=10_000, help='idle connections')
    parser.add_argument('--only', help='attacks whose name has this')
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports = dict(zip(('http', 'h2c', 'admin', 'origin'), free_ports(4)))
    os.sched_setaffinity(0, {OTHER_CPU})
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = Path(folder) / 'foreland.yaml'
        config.write_text(CONFIG.format(**ports))
        server = multiprocessing.Process(target=origin, args=(ports['origin'],), daemon=True)
        server.start()
        stack.callback(server.kill)
        wait_for(ports['origin'])
        edge = subprocess.Popen(['taskset', '-c', str(EDGE_CPU), args.foreland, 'run', '-c', str(config)],
                                stderr=subprocess.DEVNULL)
        stack.callback(edge.wait)
        stack.callback(edge.kill)
        wait_for(ports['http'])
        for path in ('/normal', '/large'):
            with contextlib.closing(http.client.HTTPConnection('127.0.0.1', ports['http'])) as client:
                client.request('GET', path)
                client.getresponse().read()
        normal = Normal(ports['http'])
        print(f'{"attack":<22} {"p50 ms":>8} {"p99 ms":>8} {"p99 by":>7} {"failed":>7} {"ended":>8} {"RSS MiB":>8} {"edge CPU":>9}')

        def measure(name, ended=None):
            before = cpu(edge.pid)
            began = time.monotonic()
            p50, p99 = normal.run(args.seconds)
            used = (cpu(edge.pid) - before) / (time.monotonic() - began)
            by = f'{p99 / base:7.2f}' if base else f'{"":>7}'
            count = '' if ended is None else ended.value
            print(f'{name:<22} {p50:8.2f} {p99:8.2f} {by} {normal.bad:7} {count:>8} {resident(edge.pid):8.1f} {used:8.0%}',
                  flush=True)
            return p99

        base = None
        normal.run(WARM_UP)
        base = measure('none')
        for name, run in ATTACKS:
            if args.only and args.only not in name:
                continue
            ended = multiprocessing.Value('l', 0, lock=False)
            attacker = multiprocessing.Process(target=attack, args=(run, ports, ended, args.idle), daemon=True)
            attacker.start()
            time.sleep(WARM_UP * (3 if 'idle' in name else 1))
            measure(name, ended)
            attacker.kill()
            attacker.join()
            deadline = time.monotonic() + 5
            while metric(ports['admin'], 'foreland_client_connections_open') > 2 and time.monotonic() < deadline:
                time.sleep(0.1)
        measure('none, afterwards')
        figures = {label: metric(ports['admin'], f'foreland_{name}') for label, name in
                   (('timed out', 'client_connections_timed_out_total'), ('calmed', 'client_connections_calmed_total'),
                    ('shed', 'shed_total'))}
        print(', '.join(f'{label}: {value:.0f}' for label, value in figures.items()))
        if edge.poll() is not None:
            sys.exit('the edge has ended')


if __name__ == '__main__':
    main()

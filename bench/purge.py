#!/usr/bin/env python3
"""What a purge takes, and what hits notice of it.

Fills the cache with few objects and then with many, each 1 KiB and with tags of its own, and asks for purges of each kind
of selector, one after the other over a kept connection. Then it measures hits alone, and hits while 100,000 tags are
purged in single calls, with the tags of what is being hit never among them.

Everything runs on loopback. Needs two cores, nginx, wrk, taskset, and a release build. See README.md beside this file.
"""
import argparse, contextlib, http.client, json, os, re, signal, socket, statistics, subprocess, sys, tempfile, threading, time
from pathlib import Path

SERVER_CPU, LOAD_CPU = '0', '1'
BODY = 'x' * 1024

ORIGIN = '''
worker_processes 1; daemon off; pid {dir}/origin.pid; error_log {dir}/origin.error.log;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
    client_body_temp_path {dir}/t; proxy_temp_path {dir}/t; fastcgi_temp_path {dir}/t; uwsgi_temp_path {dir}/t;
    scgi_temp_path {dir}/t;
    server {{
        listen 127.0.0.1:{origin} backlog=4096;
        location / {{
            add_header Cache-Control "max-age=86400";
            add_header Surrogate-Key "all product-$arg_n shelf-$arg_s";
            return 200 "{body}";
        }}
    }}
}}
'''
EDGE = '''
threads: 1
listeners: [{{ address: "127.0.0.1:{port}" }}]
admin: {{ address: "127.0.0.1:{admin}" }}
access_log: off
limits: {{ idle_timeout: 600s }}
cache:
  memory: {{ size: {memory} }}
{disk}
origins:
  o: {{ servers: ["127.0.0.1:{origin}"] }}
sites:
  - {{ name: bench, hosts: ["*"], origin: o }}
'''
# One URL after the other.
FILL = '''
local n = {have}
function request()
  n = n + 1
  return wrk.format("GET", "/p/" .. n .. "?n=" .. n .. "&s=" .. (n % 1000))
end
'''
HITS = '''
local n = 0
function request()
  n = n % {hot} + 1
  return wrk.format("GET", "/p/" .. n .. "?n=" .. n .. "&s=" .. (n % 1000))
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.duration, summary.requests, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9)))
end
'''


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(command, cpu, port, log):
    with open(log, 'ab') as out:
        process = subprocess.Popen(['taskset', '-c', cpu, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f'{command[0]} does not listen: see {log}')
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Admin:
    """A kept connection to the admin listener."""

    def __init__(self, port):
        self.port = port
        self.connect()

    def connect(self):
        self.connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=None):
        fields = {'Content-Type': 'application/json'} if body else {}
        try:
            self.connection.request(method, path, body and json.dumps(body), fields)
            answer = self.connection.getresponse()
        except (ConnectionError, http.client.HTTPException):
            # One that has been idle for some seconds is closed.
            self.connect()
            self.connection.request(method, path, body and json.dumps(body), fields)
            answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            sys.exit(f'{method} {path}: {answer.status} {data[:200]}')
        return data

    def objects(self):
        return max(tier['objects'] for tier in json.loads(self.ask('GET', '/v1/cache'))['tiers'])


def wrk(script, port, seconds, connections, directory):
    path = Path(directory, 'script.lua')
    path.write_text(script)
    command = ['taskset', '-c', LOAD_CPU, 'wrk', '-t1', f'-c{connections}', f'-d{seconds}s', '-s', str(path),
               f'http://127.0.0.1:{port}/']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fill(admin, port, wanted, directory):
    while (have := admin.objects()) < wanted:
        wrk(FILL.replace('{have}', str(have)), port, max(2, min(60, (wanted - have) // 8000)), 64, directory)
    return have


def purges(admin, rounds):
    """Milliseconds of a call, by the kind of selector: median and 99th percentile."""
    baseline = []
    for _ in range(rounds):
        began = time.perf_counter()
        admin.ask('GET', '/healthz')
        baseline.append((time.perf_counter() - began) * 1e3)
    yield 'no purge (GET /healthz)', baseline
    kinds = {
        'url': lambda i: {'urls': [f'http://nobody.test/x/{i}']},
        'tag': lambda i: {'tags': [f'none-{i}']},
        'prefix': lambda i: {'prefixes': [f'nobody.test/x/{i}']},
        'raw prefix': lambda i: {'prefixes': [f'nobody.test/x/{i}'], 'raw': True},
        'host': lambda i: {'hosts': [f'h{i}.test']},
        'tag, soft': lambda i: {'tags': [f'soft-{i}'], 'soft': True},
        'tag of a thousandth': lambda i: {'tags': [f'shelf-{i % 1000}']},
        'tag of all': lambda i: {'tags': ['all'], 'soft': True},
        'site': lambda i: {'sites': ['bench'], 'soft': True},
        'everything': lambda i: {'everything': True, 'soft': True},
    }
    for name, body in kinds.items():
        times = []
        for i in range(rounds):
            asked = body(i)
            began = time.perf_counter()
            admin.ask('POST', '/v1/purge', asked)
            times.append((time.perf_counter() - began) * 1e3)
        yield name, times


def hits(port, seconds, hot, directory):
    out = wrk(HITS.replace('{hot}', str(hot)), port, seconds, 16, directory)
    duration, requests, p50, p99, p999 = map(int, re.search(r'RESULT (.*)', out)[1].split())
    return requests / (duration / 1e6), p50 / 1e3, p99 / 1e3, p999 / 1e3


def beside_purges(admin, admin_port, port, tags, directory):
    """Hits alone, and beside purges of tags that nothing has."""
    hot = 1000
    hits(port, 3, hot, directory)
    alone = hits(port, 8, hot, directory)
    stop, counted = threading.Event(), [0]

    def purge_tags(of, parts):
        connection = Admin(admin_port)
        for i in range(tags // parts):
            if stop.is_set():
                break
            connection.ask('POST', '/v1/purge', {'tags': [f'gone-{of}-{i}']})
            counted[0] += 1

    threads = [threading.Thread(target=purge_tags, args=(of, 4)) for of in range(4)]
    for thread in threads:
        thread.start()
    beside = hits(port, 8, hot, directory)
    stop.set()
    for thread in threads:
        thread.join()

    def purge_lots():
        connection = Admin(admin_port)
        for lot in range(tags // 10_000):
            connection.ask('POST', '/v1/purge', {'tags': [f'lot-{lot}-{i}' for i in range(10_000)]})

    # As fast as they are taken.
    lots = threading.Thread(target=purge_lots)
    lots.start()
    batches = hits(port, 8, hot, directory)
    lots.join()
    print('| hits | per second | p50 ms | p99 ms | p99.9 ms |\n|---|---|---|---|---|')
    for name, (rate, p50, p99, p999) in (('alone', alone), (f'beside {counted[0]:,} single purges', beside),
                                        (f'beside {tags:,} tags in calls of 10,000', batches)):
        print(f'| {name} | {rate:,.0f} | {p50:.3f} | {p99:.3f} | {p999:.3f} |', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--binary', default=str(Path(__file__).resolve().parent.parent / 'target/release/foreland'))
    parser.add_argument('--many', type=int, default=1_000_000, help='objects of the larger cache')
    parser.add_argument('--rounds', type=int, default=200, help='calls of each kind')
    parser.add_argument('--tags', type=int, default=100_000, help='tags that are purged beside hits')
    parser.add_argument('--memory-only', action='store_true', help='without a disk, and so without an fsync')
    parser.add_argument('--dir', default=None, help='where the cache is (default: a temporary folder)')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        port, admin_port, origin = free_port(), free_port(), free_port()
        user = 'user root;' if os.getuid() == 0 else ''
        Path(directory, 'origin.conf').write_text(ORIGIN.format(dir=directory, origin=origin, body=BODY, user=user))
        disk = '' if options.memory_only else f'  disk: {{ path: "{directory}/cache", size: 64GiB }}'
        memory = '8GiB' if options.memory_only else '256MiB'
        config = Path(directory, 'edge.yaml')
        config.write_text(EDGE.format(port=port, admin=admin_port, origin=origin, memory=memory, disk=disk))
        with running(['nginx', '-c', f'{directory}/origin.conf'], LOAD_CPU, origin, f'{directory}/origin.log'), \
                running([options.binary, 'run', '-c', str(config)], SERVER_CPU, port, f'{directory}/edge.log'):
            admin = Admin(admin_port)
            results = {}
            for wanted in (10, options.many):
                have = 0
                if wanted == 10:
                    for n in range(1, 11):
                        with socket.create_connection(('127.0.0.1', port)) as s:
                            s.sendall(f'GET /p/{n}?n={n}&s={n % 1000} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'.encode())
                            while s.recv(65536):
                                pass
                    have = admin.objects()
                else:
                    have = fill(admin, port, wanted, directory)
                    # What has been filled is not to be written while something else is measured.
                    os.sync()
                print(f'{have:,} objects', flush=True)
                if wanted == options.many:
                    beside_purges(admin, admin_port, port, options.tags, directory)
                for name, times in purges(admin, options.rounds):
                    times.sort()
                    results.setdefault(name, []).append((statistics.median(times), times[int(len(times) * 0.99)]))
            print('| milliseconds of a call | 10 objects: median, p99 | many: median, p99 |\n|---|---|---|')
            for name, ((m1, p1), (m2, p2)) in results.items():
                print(f'| {name} | {m1:.3f}, {p1:.3f} | {m2:.3f}, {p2:.3f} |')


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""What guards cost a hit: CPU of the edge for each request, bare and with one guard more at a time.

One process serves all variants, each a site of its own, so that nothing differs but the guards; the variants take turns, and
what is compared is the median over the rounds. Everything runs on loopback. Needs two cores, wrk, taskset and a release
build: bench/guards.py --foreland target/release/foreland. See README.md beside this file.
"""
import argparse, http.server, os, re, signal, socket, statistics, subprocess, tempfile, threading, time
from pathlib import Path

SERVER_CPU, LOAD_CPU = '0', '1'
SECRET = 'correct horse battery staple, 32 bytes and more'

CONFIG = '''
threads: 1
listeners: [{{ address: "127.0.0.1:{port}" }}]
access_log: {{ path: "{dir}/access.log", format: combined }}
limits: {{ idle_timeout: 600s }}
keys: {{ k: {{ format: foreland, secrets: [env:BENCH_KEY] }} }}
origins: {{ o: {{ servers: ["127.0.0.1:{origin}"] }} }}
sites:
  - {{ hosts: [bare.test], origin: o }}
  - {{ hosts: [list.test], origin: o, access: {list} }}
  - {{ hosts: [rate.test], origin: o, rate_limit: {rate} }}
  - {{ hosts: [both.test], origin: o, access: {list}, rate_limit: {rate} }}
  - {{ hosts: [signed.test], origin: o, access: {list}, rate_limit: {rate}, signed_url: k }}
'''
# Ten thousand networks, none of them ours.
LIST = '{{ deny: ["file:{dir}/deny.txt"] }}'
RATE = '{ key: client-ip, rate: 10000000/s, burst: 10000000 }'
VARIANTS = {
    'bare': 'no guard',
    'list': 'an address list (10,000 networks)',
    'rate': 'a rate limit by address',
    'both': 'both',
    'signed': 'both, and a signed URL',
}


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        body = b'x' * 1024
        self.send_response(200)
        self.send_header('Cache-Control', 'max-age=86400')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def cpu(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def load(host, target, port, seconds, folder):
    script = Path(folder, 'load.lua')
    script.write_text(f'''wrk.path = "{target}"
wrk.headers["Host"] = "{host}"
done = function(s) print("BENCH " .. s.requests .. " " .. s.errors.status) end
''')
    url = f'http://127.0.0.1:{port}/'
    command = ['taskset', '-c', LOAD_CPU, 'wrk', '-t1', '-c32', f'-d{seconds}s', '-s', str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, errors = map(int, re.search(r'BENCH (\d+) (\d+)', out).groups())
    if errors:
        raise SystemExit(f'{host}: {errors} of {requests} requests were refused')
    return requests


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--foreland', default='target/release/foreland')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        origin = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Origin)
        threading.Thread(target=origin.serve_forever, daemon=True).start()
        port, config = free_port(), Path(folder, 'foreland.yaml')
        networks = (f'198.{18 + i // 65536}.{i // 256 % 256}.{i % 256}/32' for i in range(0, 20000, 2))
        Path(folder, 'deny.txt').write_text('\n'.join(networks) + '\n')
        listed = LIST.format(dir=folder)
        values = dict(port=port, dir=folder, origin=origin.server_port, list=listed, rate=RATE)
        config.write_text(CONFIG.format(**values))
        env = {**os.environ, 'BENCH_KEY': SECRET}
        sign = [args.foreland, 'sign', '-c', str(config), 'http://signed.test/a', '--key', 'k', '--expires', '1h']
        signed = subprocess.run(sign, env=env, capture_output=True, text=True, check=True).stdout.strip()
        targets = {name: '/a' for name in VARIANTS} | {'signed': signed.removeprefix('http://signed.test')}
        run = ['taskset', '-c', SERVER_CPU, args.foreland, 'run', '-c', str(config)]
        server = subprocess.Popen(run, env=env, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(('127.0.0.1', port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            costs = {name: [] for name in VARIANTS}
            for n in range(args.rounds + 1):
                for name, target in targets.items():
                    before = cpu(server.pid)
                    requests = load(f'{name}.test', target, port, 1 if n == 0 else args.seconds, folder)
                    if n > 0:  # The first round warms up.
                        costs[name].append((cpu(server.pid) - before) / requests * 1e6)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
        base = statistics.median(costs['bare'])
        print('| 1 KiB hit with | CPU, us a request | more than bare, us |\n|---|---|---|')
        for name, words in VARIANTS.items():
            median = statistics.median(costs[name])
            added = statistics.median(cost - bare for cost, bare in zip(costs[name], costs['bare']))
            print(f'| {words} | {median:.2f} | {added:+.2f} |')
        spread = (max(costs['bare']) - min(costs['bare'])) / base
        print(f'\n{args.rounds} rounds of {args.seconds} s; spread of the bare figure {spread:.0%}')


if __name__ == '__main__':
    main()

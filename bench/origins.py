#!/usr/bin/env python3
"""Foreland, nginx and HAProxy before three servers: what a request costs, and what clients notice of servers that are
slow, are killed, or fail.

The proxy under test has one thread on one core; the clients and the servers have the other. Everything is on loopback.
Needs two cores, nginx, haproxy, wrk, taskset, and a release build; takes four minutes. See README.md beside this file.
"""
import argparse, contextlib, http.client, os, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from compare import HERE, LOAD_CPU, SERVER_CPU, Server, fill, free_ports, origin_count
from resilience.client import Client, is_bad
from resilience.setups import SETUPS, FORELAND, HAPROXY, NGINX

# Milliseconds of a request at a server, and at the slow one.
FAST, SLOW = 2, 20
# Of all proxies that have health checks.
INTERVAL = 0.5
CONNECTIONS, RATE = 32, 1500
# Per cent of the requests that may be tried again, and how many a second may be anyway: Foreland's own defaults.
BUDGET, FLOOR, WINDOW = 20, 10, 10

DONE = '''
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.duration, summary.requests,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
'''


class Origin:
    """One of the servers, which can be killed at any moment, and be back at any other without the time of its start."""

    def __init__(self, port, takes=FAST, fails=None):
        self.port = port
        self.command = ['taskset', '-c', LOAD_CPU, sys.executable, str(HERE / 'resilience/server.py'), '--port', str(port),
                        '--takes', str(takes), *(['--fails', fails] if fails else [])]
        self.standby = subprocess.Popen([*self.command, '--standby'], stdin=subprocess.PIPE)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)

    def wait(self):
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', self.port), 1):
                return
            if time.monotonic() > deadline:
                raise RuntimeError('a server does not listen')
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def revive(self):
        self.process, self.standby = self.standby, None
        self.process.stdin.close()

    def asked(self):
        with contextlib.closing(http.client.HTTPConnection('127.0.0.1', self.port, timeout=10)) as connection:
            connection.request('GET', '/count')
            return int(connection.getresponse().read())

    def stop(self):
        for process in filter(None, (self.process, self.standby)):
            process.kill()
            process.wait()


class Bench:
    def __init__(self, args, folder):
        self.args, self.folder, self.met = args, folder, []

    @contextlib.contextmanager
    def origins(self, takes=(FAST, FAST, FAST), fails=(None, None, None)):
        with contextlib.ExitStack() as stack:
            servers = []
            for port, taken, failing in zip(free_ports(3), takes, fails):
                servers.append(Origin(port, taken, failing))
                stack.callback(servers[-1].stop)
            for server in servers:
                server.wait()
            yield servers

    @contextlib.contextmanager
    def proxy(self, setup, ports):
        """A proxy before servers with these ports."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            port, = free_ports(1)
            file = Path(folder, 'configuration')
            file.write_text(setup.configuration(folder, port, ports, INTERVAL))
            server = Server(setup.name, setup.command(self.args.foreland, str(file)), SERVER_CPU, port, f'{folder}/log')
            try:
                server.start()
                yield server
            finally:
                server.stop()

    def demand(self, what, met):
        self.met.append((what, bool(met)))

    def wrk(self, server, connections, seconds):
        """Microseconds of CPU and requests a second, p50 and p99 in milliseconds."""
        lua = Path(self.folder, 'wrk.lua')
        lua.write_text(DONE)
        cpu = server.cpu_seconds()
        run = subprocess.run(['taskset', '-c', LOAD_CPU, 'wrk', '-t1', f'-c{connections}', f'-d{seconds}s', '--timeout', '5s', '-s',
                              str(lua), f'http://127.0.0.1:{server.port}/pass/1'], capture_output=True, text=True, timeout=seconds + 30)
        cpu = server.cpu_seconds() - cpu
        if not (found := re.search(r'^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$', run.stdout, re.M)):
            raise RuntimeError('wrk: ' + (run.stderr or run.stdout)[-300:])
        duration, requests, errors, p50, p99 = map(int, found.groups())
        if not requests or errors > requests / 1000:
            raise RuntimeError(f'{server.name}: {errors} errors in {requests} requests')
        return cpu * 1e6 / requests, requests / duration * 1e6, p50 / 1e3, p99 / 1e3


def passing(bench):
    """What a request costs that is only passed on."""
    print('\n### 1 KiB passed on, three servers, 64 keepalive connections\n')
    print('| | CPU of a request, us | ratio to nginx | requests a second | p99, ms |\n|---|--:|--:|--:|--:|', flush=True)
    with contextlib.ExitStack() as stack:
        origin_port, *ports = free_ports(4)
        folder = bench.folder
        os.mkdir(f'{folder}/www')
        Path(folder, 'www', '1k').write_text('x' * 1024)
        fill('origin.conf', f'{folder}/origin.conf', dir=folder, port=origin_port, origin=origin_port, user=user())
        text = Path(folder, 'origin.conf').read_text()
        more = '\n'.join(f'        listen 127.0.0.1:{port} backlog=4096;' for port in ports)
        Path(folder, 'origin.conf').write_text(text.replace('        root ', f'{more}\n        root '))
        origin = Server('origin', ['nginx', '-c', f'{folder}/origin.conf'], LOAD_CPU, origin_port, f'{folder}/origin.log')
        stack.callback(origin.stop)
        origin.start()
        for cache in (False, True):
            setups = [NGINX.of(cache=cache), HAPROXY.of(cache=cache), FORELAND.of(balance='least-requests', cache=cache)]
            with contextlib.ExitStack() as proxies:
                servers = [proxies.enter_context(bench.proxy(setup, ports)) for setup in setups]
                results = {server: [] for server in servers}
                for server in servers:
                    bench.wrk(server, 64, 1)
                for r in range(bench.args.rounds):
                    for server in servers[r % 3:] + servers[:r % 3]:
                        before = origin_count(origin)
                        results[server].append(bench.wrk(server, 64, bench.args.seconds))
                        asked, done = origin_count(origin) - before, results[server][-1][1] * bench.args.seconds
                        if not 0.95 * done <= asked:
                            raise RuntimeError(f'{server.name}: {asked} requests reached the servers, of {done:.0f}')
                for server in servers:
                    cpu, rate, _, p99 = (statistics.median(column) for column in zip(*results[server]))
                    ratio = statistics.median(own[0] / max(its[0], 1e-9) for own, its in zip(results[server], results[servers[0]]))
                    what = 'which may cache' if cache else 'without a cache'
                    print(f'| {server.name}, {what} | {cpu:.1f} | {ratio:.2f} | {rate:,.0f} | {p99:.2f} |', flush=True)
                    if server.name == 'Foreland':
                        bench.demand(f'passing on, {what}: CPU at most 1.2 of nginx\'s ({ratio:.2f})', ratio <= 1.2)


def user():
    return 'user root;' if os.getuid() == 0 else ''


def slow(bench):
    """What clients notice of a slow server."""
    setups = [FORELAND.of(balance=balance) for balance in
              ('round-robin', 'least-requests', '{ by: least-requests, choices: 2 }', 'least-latency')] + [NGINX, HAPROXY]
    for connections, demanded in ((CONNECTIONS, ('least-requests', 'least-latency')), (4, ('least-latency',))):
        print(f'\n### One server of three takes {SLOW} ms, the others {FAST} ms; four requests at once each; '
              f'{connections} connections\n')
        print('| | requests a second | p50, ms | p99, ms | p99 to round robin\'s |\n|---|--:|--:|--:|--:|', flush=True)
        base = None
        for setup in setups:
            with bench.origins(takes=(FAST, SLOW, FAST)) as origins, bench.proxy(setup, [o.port for o in origins]) as server:
                bench.wrk(server, connections, 1)
                _, rate, p50, p99 = bench.wrk(server, connections, bench.args.seconds + 1)
            base = base or p99
            print(f'| {setup.title} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {p99 / base:.2f} |', flush=True)
            if setup.name == 'Foreland' and setup.balance in demanded:
                what = f'a slow server, {connections} connections: p99 of {setup.balance} at most half of round robin\'s'
                bench.demand(f'{what} ({p99:.1f} ms to {base:.1f} ms)', p99 <= base / 2)


def killed(bench):
    """What clients notice of a server that is killed and comes back."""
    print(f'\n### A server of three is killed after 1.5 s and is back after 3 s, another after 4 s for good; {RATE:,} requests a '
          'second\n')
    print('| | requests | failed | p99, ms | longest, ms |\n|---|--:|--:|--:|--:|', flush=True)
    for setup in SETUPS:
        with bench.origins() as origins, bench.proxy(setup, [o.port for o in origins]) as server:
            client = Client(server.port, CONNECTIONS, RATE, ['/pass/1'])
            seen = client.run(6, [(1.5, origins[0].kill), (3, origins[0].revive), (4, origins[1].kill)])
        bad, times = sum(map(is_bad, seen)), sorted(s.ended - s.sent for s in seen)
        print(f'| {setup.title} | {len(seen):,} | {bad} | {times[len(times) * 99 // 100] * 1e3:.1f} | {times[-1] * 1e3:.1f} |', flush=True)
        if setup.name == 'Foreland':
            bench.demand(f'a server killed under load: no failed request ({bad} of {len(seen):,})', bad == 0)


def outage(bench):
    """What clients notice of all servers' absence, and of their return."""
    print(f'\n### All servers are killed for 3 s; half of the requests are for what may be served stale; checks each '
          f'{INTERVAL * 1e3:.0f} ms\n')
    print('| | failed meanwhile | served stale | first good answer after | last bad one after |\n|---|--:|--:|--:|--:|', flush=True)
    for setup in SETUPS:
        setup = setup.of(cache=True)
        with bench.origins() as origins, bench.proxy(setup, [o.port for o in origins]) as server:
            moments = {}

            def all_of(what, act):
                moments[what] = time.monotonic()
                for origin in origins:
                    act(origin)
            targets = [target for n in range(10) for target in ('/pass/1', f'/kept/{n}')]
            seen = Client(server.port, CONNECTIONS, RATE, targets).run(
                10, [(2, lambda: all_of('gone', Origin.kill)), (5, lambda: all_of('back', Origin.revive))])
        gone, back = moments['gone'], moments['back']
        meanwhile = [s for s in seen if gone <= s.sent and s.ended <= back]
        passed, kept = ([s for s in meanwhile if ('/kept/' in s.target) == is_kept] for is_kept in (False, True))
        first = min((s.ended - back for s in seen if s.sent >= back and not is_bad(s)), default=None)
        fresh = min((s.ended - back for s in seen if s.sent >= back and not is_bad(s) and '/pass/' in s.target), default=None)
        last = max((s.ended - back for s in seen if is_bad(s)), default=-1)
        stale = sum(not is_bad(s) for s in kept)

        def after(seconds):
            return 'never' if seconds is None else f'{max(seconds, 0) * 1e3:.0f} ms'
        print(f'| {setup.title} | {sum(map(is_bad, passed)):,} of {len(passed):,} | {stale:,} of {len(kept):,} | {after(fresh)} | '
              f'{after(last)} |', flush=True)
        if setup.name == 'Foreland':
            bench.demand(f'all servers back: no bad answer after a health interval ({after(last)})',
                         fresh is not None and max(last, first, fresh) <= INTERVAL)
            bench.demand(f'all servers gone: what may be served stale is ({stale:,} of {len(kept):,})', stale == len(kept) > 0)


def failing(bench):
    """How many requests reach servers that fail."""
    print(f'\n### Servers that fail; {RATE:,} requests a second; retries of resets and 503 wherever there are any\n')
    print('| | servers that fail | requests | at the servers | for each request | failed |\n|---|---|--:|--:|--:|--:|', flush=True)
    unjudged = FORELAND.of(balance='least-requests', judged=False)
    for case, fails in (('one of three: 503', ('503', None, None)), ('one of three: reset', ('reset', None, None)),
                        ('all: 503', ('503',) * 3), ('all: reset', ('reset',) * 3)):
        for setup in (SETUPS[0], unjudged, *SETUPS[1:]):
            setup = setup.of(retry_503=True)
            with bench.origins(fails=fails) as origins, bench.proxy(setup, [o.port for o in origins]) as server:
                seen = Client(server.port, CONNECTIONS, RATE, ['/pass/1']).run(bench.args.seconds + 1)
                asked = sum(origin.asked() for origin in origins)
            bad = sum(map(is_bad, seen))
            print(f'| {setup.title} | {case} | {len(seen):,} | {asked:,} | {asked / len(seen):.2f} | {bad:,} |', flush=True)
            if setup.name == 'Foreland':
                most = len(seen) * (100 + BUDGET) / 100 + FLOOR * WINDOW + CONNECTIONS
                bench.demand(f'{setup.title}, {case}: retries within the budget ({asked:,} requests, at most {most:,.0f})', asked <= most)


PARTS = {'pass': passing, 'slow': slow, 'killed': killed, 'outage': outage, 'failing': failing}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('--foreland', default=str(HERE.parent / 'target/release/foreland'), help='the binary (%(default)s)')
    p.add_argument('--seconds', type=int, default=3, help='of one measurement (%(default)s)')
    p.add_argument('--rounds', type=int, default=5, help='of `pass` (%(default)s)')
    p.add_argument('--parts', default=','.join(PARTS), help='(%(default)s)')
    a = p.parse_args()
    a.parts = a.parts.split(',')
    if unknown := set(a.parts) - set(PARTS):
        p.error(f'unknown parts: {", ".join(sorted(unknown))}')
    if a.seconds < 1 or a.rounds < 1:
        p.error('--seconds and --rounds are at least 1')
    if (os.cpu_count() or 1) < 2:
        p.error('two cores are needed: one for the proxy, one for the load')
    os.environ['PATH'] += ':/usr/sbin'
    for tool in ('nginx', 'haproxy', 'wrk', 'taskset', a.foreland):
        if not shutil.which(tool):
            p.error(f'{tool} is missing')
    return a


def main():
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {int(LOAD_CPU)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix='foreland-bench-') as folder:
        bench, failed = Bench(args, folder), False
        for part in args.parts:
            try:
                PARTS[part](bench)
            except (RuntimeError, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as e:
                print(f'\n{part} not measured: {e}', flush=True)
                failed = True
    print('\n### Demands\n\n| | |\n|---|---|')
    for what, met in bench.met:
        print(f'| {what} | {"met" if met else "NOT MET"} |')
    return 1 if failed or not all(met for _, met in bench.met) else 0


if __name__ == '__main__':
    sys.exit(main())

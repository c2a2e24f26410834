#!/usr/bin/env python3
"""Foreland beside nginx on one machine, over loopback: what a request costs each of them.

The figure is the server's CPU time per request (utime + stime of its process tree, from /proc): unlike requests per
second it does not depend on what else the machine does. The server under test runs on one core, wrk and the origin on
another. In each round the two take turns, first one first, then the other; the result is the median of the ratios
within a round, so that a machine which slows down for a while slows both.

Needs two cores, nginx, wrk, taskset, and a release build. See README.md beside this file.
"""
import argparse, contextlib, http.client, os, random, re, resource, select, shutil, signal, socket, statistics, subprocess, sys
import tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_CPU, LOAD_CPU = '0', '1'
TICK = os.sysconf('SC_CLK_TCK')
ZIPF_OBJECTS, ZIPF_SIZE, IDLE = 20_000, 4096, 5_000

# wrk's summary in a form that is easy to read, for every workload.
DONE = '''
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d\\n", summary.duration, summary.requests,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(99)))
end
'''
# Requests are built once; popularity of the k-th object falls as 1/k^0.9.
ZIPF = '''
local urls, picks, at = {}, {}, 0
function init(args)
  math.randomseed(7)
  local sums, total = {}, 0
  for k = 1, %d do
    total = total + 1 / k ^ 0.9
    sums[k] = total
    urls[k] = wrk.format("GET", "/zipf/" .. k)
  end
  for i = 1, 200000 do
    local u, low, high = math.random() * total, 1, #sums
    while low < high do
      local mid = math.floor((low + high) / 2)
      if sums[mid] < u then low = mid + 1 else high = mid end
    end
    picks[i] = low
  end
end
function request()
  at = at %% #picks + 1
  return urls[picks[at]]
end
''' % ZIPF_OBJECTS
CLOSE = 'wrk.headers["Connection"] = "close"\n'

# Name: what it is, path, wrk connections, script, share of requests that may and must reach the origin.
WORKLOADS = {
    'hit': ('1 KiB hit, 64 keepalive connections', '/hit/1', 64, '', (0, 0.001)),
    'zipf': (f'Zipf over {ZIPF_OBJECTS:,} x 4 KiB', '/zipf/1', 64, ZIPF, (0, 0.01)),
    'pass': ('pass-through, no-store 1 KiB', '/pass/1', 64, '', (0.99, 1.01)),
    'connect': ('1 KiB hit, a new connection each', '/hit/1', 64, CLOSE, (0, 0.001)),
    'idle': (f'memory of {IDLE:,} idle connections', '/hit/1', IDLE, None, None),
}


class Server:
    """A process on a core, with its children."""

    def __init__(self, name, command, cpu, port, log):
        self.name, self.command, self.cpu, self.port, self.log = name, command, cpu, port, log
        self.process = None

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(['taskset', '-c', self.cpu, *self.command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f'{self.name} does not start:\n' + Path(self.log).read_text(errors='replace')[-2000:])
            time.sleep(0.05)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                # A session of its own, so this ends the children too, and nothing else.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def restart(self):
        self.stop()
        self.start()

    def tree(self):
        parents = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            if fields := stat(pid):
                parents.setdefault(int(fields[1]), []).append(int(pid))
        pids = [self.process.pid]
        for pid in pids:
            pids.extend(parents.get(pid, ()))
        return pids

    def cpu_seconds(self):
        """User and system time of all its processes, and of those of their children that have ended."""
        return sum(sum(map(int, fields[11:15])) for pid in self.tree() if (fields := stat(pid))) / TICK

    def memory(self):
        """Resident bytes, shared pages counted once for each process."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += int(re.search(r'^Rss:\s+(\d+)', Path(f'/proc/{pid}/smaps_rollup').read_text(), re.M)[1]) * 1024
        return total

    def get(self, path):
        with contextlib.closing(http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)) as connection:
            connection.request('GET', path)
            response = connection.getresponse()
            return response.status, response.read()


def stat(pid):
    """What stands in /proc/PID/stat after the command's name: state, parent, ..."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return None


def free_ports(count):
    """Ports below the range from which the kernel takes clients' ports, so that no connection of wrk has one of them."""
    found = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(('127.0.0.1', port))
            found.append(port)
    return sorted(set(found)) if len(set(found)) == count else free_ports(count)


def fill(template, target, **values):
    text = (HERE / template).read_text()
    for name, value in values.items():
        text = text.replace(f'@{name.upper()}@', str(value))
    Path(target).write_text(text)


def origin_count(origin):
    """Requests that the origin has had, this one not counted."""
    origin.asked = getattr(origin, 'asked', 0) + 1
    return int(origin.get('/count')[1].split()[9]) - origin.asked


def warm(server, origin, workload):
    """Fills the cache and proves that the server does what the workload says; else why it does not."""
    path, bounds = WORKLOADS[workload][1], WORKLOADS[workload][4]
    size = ZIPF_SIZE if workload == 'zipf' else 1024
    connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=20)
    paths = [f'/zipf/{k}' for k in range(1, ZIPF_OBJECTS + 1)] if workload == 'zipf' else [path] * 3
    for p in paths:
        connection.request('GET', p)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or body != b'x' * size:
            return f'GET {p}: {response.status} with {len(body)} bytes'
    connection.close()
    before = origin_count(origin)
    server.get(path)
    asked = origin_count(origin) - before
    expected = 1 if bounds and bounds[0] > 0 else 0
    return '' if asked == expected else f'a request to {path} made {asked} requests at the origin, not {expected}'


def load(server, origin, workload, seconds, folder):
    """One round of wrk: CPU in us per request, requests a second, p99 in us; raises where the round is not valid."""
    _, path, connections, script, bounds = WORKLOADS[workload]
    lua = Path(folder, 'wrk.lua')
    lua.write_text(script + DONE)
    asked, cpu = origin_count(origin), server.cpu_seconds()
    run = subprocess.run(['taskset', '-c', LOAD_CPU, 'wrk', '-t1', f'-c{connections}', f'-d{seconds}s', '--timeout', '5s', '-s', str(lua),
                          f'http://127.0.0.1:{server.port}{path}'], capture_output=True, text=True, timeout=seconds + 30)
    cpu, asked = server.cpu_seconds() - cpu, origin_count(origin) - asked
    found = re.search(r'^RESULT (\d+) (\d+) (\d+) (\d+)$', run.stdout, re.M)
    if not found:
        raise RuntimeError('wrk: ' + (run.stderr or run.stdout)[-300:])
    duration, requests, errors, p99 = map(int, found.groups())
    if not requests or errors > requests / 1000:
        raise RuntimeError(f'{errors} errors in {requests} requests')
    # wrk drops what is in flight at its end: the origin may have seen a few more than wrk counts.
    if not bounds[0] * requests <= asked <= bounds[1] * requests + connections + 5:
        raise RuntimeError(f'{asked} of {requests} requests reached the origin')
    return cpu * 1e6 / requests, requests / duration * 1e6, p99


def idle(server):
    """Resident bytes for each idle keepalive connection that has had one request, in a fresh process."""
    server.restart()
    request = b'GET /hit/1 HTTP/1.1\r\nHost: bench\r\n\r\n'
    with contextlib.ExitStack() as stack:
        open_connections = []

        def grow(count):
            while len(open_connections) < count:
                s = stack.enter_context(socket.create_connection(('127.0.0.1', server.port), 10))
                s.sendall(request)
                data = b''
                while not data.endswith(b'\r\n\r\n' + b'x' * 1024):
                    if not (more := s.recv(4096)):
                        raise RuntimeError('a connection was closed')
                    data += more
                open_connections.append(s)
            time.sleep(1)  # for pages that are given back a moment later
            return server.memory()

        base = grow(64)
        full = grow(64 + IDLE)
        poll = select.poll()
        for s in open_connections:
            poll.register(s, select.POLLIN)
        if closed := len(poll.poll(0)):
            raise RuntimeError(f'{closed} connections were closed')
        return (full - base) / IDLE


def arguments():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('--foreland', default=str(HERE.parent / 'target/release/foreland'), help='the binary (%(default)s)')
    p.add_argument('--seconds', type=int, default=3, help='of one measurement (%(default)s)')
    p.add_argument('--rounds', type=int, default=5, help='(%(default)s)')
    p.add_argument('--workloads', default=','.join(WORKLOADS), help='(%(default)s)')
    a = p.parse_args()
    a.workloads = a.workloads.split(',')
    if unknown := set(a.workloads) - set(WORKLOADS):
        p.error(f'unknown workloads: {", ".join(sorted(unknown))}')
    if a.seconds < 1 or a.rounds < 1:
        p.error('--seconds and --rounds are at least 1')
    if (os.cpu_count() or 1) < 2:
        p.error('two cores are needed: one for the server, one for the load')
    os.environ['PATH'] += ':/usr/sbin'
    for tool in ('nginx', 'wrk', 'taskset', a.foreland):
        if not shutil.which(tool):
            p.error(f'{tool} is missing')
    return a


def main():
    args = arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 'idle' in args.workloads and hard < 2 * IDLE:
        sys.exit(f'{2 * IDLE} open files are needed for `idle`, {hard} are allowed')
    os.sched_setaffinity(0, {int(LOAD_CPU)})
    with tempfile.TemporaryDirectory(prefix='foreland-bench-') as folder, contextlib.ExitStack() as stack:
        origin_port, nginx_port, foreland_port = free_ports(3)
        values = dict(dir=folder, origin=origin_port, user='user root;' if os.getuid() == 0 else '')
        os.mkdir(f'{folder}/www')
        for name, size in (('1k', 1024), ('4k', ZIPF_SIZE)):
            Path(folder, 'www', name).write_text('x' * size)
        fill('origin.conf', f'{folder}/origin.conf', port=origin_port, **values)
        fill('nginx.conf', f'{folder}/nginx.conf', port=nginx_port, **values)
        fill('foreland.yaml', f'{folder}/foreland.yaml', port=foreland_port, **values)

        def server(name, command, cpu, port):
            s = Server(name, command, cpu, port, f'{folder}/{name}.log')
            stack.callback(s.stop)
            s.start()
            return s
        origin = server('origin', ['nginx', '-c', f'{folder}/origin.conf'], LOAD_CPU, origin_port)
        nginx = server('nginx', ['nginx', '-c', f'{folder}/nginx.conf'], SERVER_CPU, nginx_port)
        foreland = server('foreland', [args.foreland, 'run', '-c', f'{folder}/foreland.yaml'], SERVER_CPU, foreland_port)
        failed = False
        print(f'{args.rounds} rounds of {args.seconds} s; CPU us per request, requests a second, p99; medians over the rounds')
        for workload in args.workloads:
            try:
                print(compare(workload, nginx, foreland, origin, args, folder), flush=True)
            except (RuntimeError, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as e:
                print(f'{workload:8} not measured: {e}', flush=True)
                failed = True
        return 1 if failed else 0


def compare(workload, nginx, foreland, origin, args, folder):
    """A workload's line of the report."""
    title = WORKLOADS[workload][0]
    if workload == 'idle':
        a, b = idle(nginx) / 1024, idle(foreland) / 1024
        return f'{workload:8} {title:38} nginx {a:6.2f} KiB each   foreland {b:6.2f} KiB each   ratio {b / max(a, 1e-9):.2f}'
    for s in (nginx, foreland):
        if why := warm(s, origin, workload):
            raise RuntimeError(f'{s.name}: {why}')
    results = {nginx: [], foreland: []}
    for r in range(args.rounds):
        for s in (nginx, foreland) if r % 2 == 0 else (foreland, nginx):
            results[s].append(load(s, origin, workload, args.seconds, folder))
    ratio = statistics.median(b[0] / max(a[0], 1e-9) for a, b in zip(results[nginx], results[foreland]))

    def figures(s):
        cpu, rate, p99 = (statistics.median(column) for column in zip(*results[s]))
        return f'{s.name} {cpu:6.2f} us {rate:8,.0f}/s {p99 / 1000:6.2f} ms'
    return f'{workload:8} {title:38} {figures(nginx)}   {figures(foreland)}   ratio {ratio:.2f}'


if __name__ == '__main__':
    sys.exit(main())

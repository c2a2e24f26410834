"""The proxies of the benchmark of origins, each set up as its operators do: kept connections to the servers, tries at
another server after a failure, health checks where it has them, an access log."""
import dataclasses, os

FORELAND_YAML = '''
threads: 1
listeners: [{{ address: "127.0.0.1:{port}" }}]
access_log: {{ path: "{folder}/access.log", format: combined }}
cache: {{ memory: {{ size: 64MiB }} }}
limits: {{ idle_timeout: 300s }}
origins:
  o:
    servers: [{servers}]
    balance: {balance}
    health_check: {{ interval: {interval}ms, timeout: {interval}ms, unhealthy_after: 2, healthy_after: 1 }}
    {settings}
sites: [{{ name: bench, hosts: ["*"], origin: o, cache: {cache} }}]
'''
NGINX_CONF = '''
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log combined buffer=64k flush=1s;
    keepalive_timeout 300s; keepalive_requests 1000000000;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t;
    scgi_temp_path {folder}/t;
    {cache_path}
    upstream o {{ least_conn; {servers} keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            {cache}
            proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_next_upstream error timeout{retry};
            proxy_pass http://o;
        }}
    }}
}}
'''
HAPROXY_CFG = '''
global
  nbthread 1
  maxconn 8000
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option redispatch 1
  retry-on conn-failure empty-response{retry}
  timeout connect 2s
  timeout client 300s
  timeout server 30s
  http-reuse always
{cache}
frontend f
  bind 127.0.0.1:{port} backlog 4096
  {use}
  default_backend b
backend b
  balance leastconn
  default-server check inter {interval} fall 2 rise 1
{servers}
'''


@dataclasses.dataclass(frozen=True)
class Setup:
    name: str
    balance: str = ''
    cache: bool = False
    # Whether 503 is tried again.
    retry_503: bool = False
    # Whether servers are judged by what they answer.
    judged: bool = True

    def of(self, **changes):
        return dataclasses.replace(self, **changes)

    @property
    def title(self):
        balance = {'nginx': 'least_conn', 'HAProxy': 'leastconn'}.get(self.name, self.balance.strip('{} ').replace('by: ', ''))
        return f'{self.name}, {balance}' + ('' if self.judged else ', outliers off')

    def command(self, foreland, file):
        return {'Foreland': [foreland, 'run', '-c', file], 'nginx': ['nginx', '-c', file], 'HAProxy': ['haproxy', '-db', '-f', file]}[self.name]

    def configuration(self, folder, port, ports, interval):
        values = dict(folder=folder, port=port, interval=int(interval * 1e3))
        return getattr(self, f'_{self.name.lower()}')(values, [f'127.0.0.1:{p}' for p in ports])

    def _foreland(self, values, servers):
        settings = ['retry: { on: [reset, 503] }'] if self.retry_503 else []
        settings += [] if self.judged else ['outliers: off']
        return FORELAND_YAML.format(servers=', '.join(f'"{s}"' for s in servers), balance=self.balance, settings='\n    '.join(settings),
                                    cache='on' if self.cache else 'off', **values)

    def _nginx(self, values, servers):
        path = f'proxy_cache_path {values["folder"]}/cache keys_zone=c:16m max_size=64m use_temp_path=off;'
        cache = 'proxy_cache c; proxy_cache_use_stale error timeout http_502 http_503 http_504;'
        return NGINX_CONF.format(servers=' '.join(f'server {s};' for s in servers), retry=' http_503' if self.retry_503 else '',
                                 cache_path=path if self.cache else '', cache=cache if self.cache else '',
                                 user='user root;' if os.getuid() == 0 else '', **values)

    def _haproxy(self, values, servers):
        cache = 'cache c\n  total-max-size 64\n  max-age 3600\n' if self.cache else ''
        use = 'http-request cache-use c\n  http-response cache-store c' if self.cache else ''
        return HAPROXY_CFG.format(servers='\n'.join(f'  server s{n} {s}' for n, s in enumerate(servers)), cache=cache, use=use,
                                  retry=' 503' if self.retry_503 else '', **values)


FORELAND = Setup('Foreland', 'least-requests')
NGINX = Setup('nginx')
HAPROXY = Setup('HAProxy')
SETUPS = [FORELAND, NGINX, HAPROXY]

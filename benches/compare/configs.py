"""The same service, written for three proxies: `/cached/` is kept for an hour, `/plain/` never.

Everybody gets one worker, no access log, connections to the origin that are kept open, the same
limits on requests per connection, and the forwarding fields that are usual.
"""

from pathlib import Path

BODY = 1024
FOREVER = 1_000_000_000


def origin(folder, port):
    """nginx with a file of 1 KiB; every answer carries a fresh number, which unmasks a cache."""
    root = Path(folder) / "files"
    for name in ("cached", "plain"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "1k").write_bytes(b"x" * BODY)
    (Path(folder) / "origin.conf").write_text(f"""
{NGINX_HEAD.format(folder=folder, name="origin")}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=100;
  keepalive_requests {FOREVER};
  default_type application/octet-stream;
  add_header X-Made $request_id;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {root};
    location /cached/ {{
      add_header X-Made $request_id;
      add_header Cache-Control "public, max-age=3600";
    }}
  }}
}}
""")


NGINX_HEAD = """
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.error.log;
events {{ worker_connections 4096; }}
"""


def nginx(folder, ports, origin_port, chain, key):
    """The text of nginx.conf."""
    plain, tls = ports
    temporary = "".join(
        f"  {kind}_temp_path {folder}/nginx-{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
{NGINX_HEAD.format(folder=folder, name="nginx")}
http {{
{temporary}
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=1000;
  keepalive_requests {FOREVER};
  proxy_cache_path {folder}/nginx-cache keys_zone=cache:10m max_size=256m use_temp_path=off;
  upstream origin {{
    server 127.0.0.1:{origin_port};
    keepalive 64;
    keepalive_requests {FOREVER};
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  server {{
    listen 127.0.0.1:{plain} backlog=1024;
    listen 127.0.0.1:{tls} ssl http2 backlog=1024;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    location /cached/ {{
      proxy_cache cache;
      proxy_cache_lock on;
      proxy_pass http://origin;
    }}
    location /plain/ {{
      proxy_pass http://origin;
    }}
  }}
}}
"""


def haproxy(folder, ports, origin_port, both):
    """The text of haproxy.cfg."""
    plain, tls = ports
    return f"""
global
  nbthread 1
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor

cache small
  total-max-size 64
  max-object-size 65536
  max-age 3600

frontend all
  bind 127.0.0.1:{plain} backlog 1024
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1 backlog 1024
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  use_backend cached if {{ path_beg /cached/ }}
  default_backend plain

backend cached
  http-request cache-use small
  http-response cache-store small
  server origin 127.0.0.1:{origin_port} pool-max-conn 64

backend plain
  server origin 127.0.0.1:{origin_port} pool-max-conn 64
"""


def edgeproxy(folder, ports, origin_port, chain, key):
    """The text of edge.yaml."""
    plain, tls = ports
    return f"""
process:
  threads: 1
  state_dir: "{folder}/edgeproxy"
listeners:
  - name: plain
    address: "127.0.0.1:{plain}"
  - name: tls
    address: "127.0.0.1:{tls}"
    tls:
      certificates:
        - hosts: [localhost, 127.0.0.1]
          certificate: "{chain}"
          key: "{key}"
limits:
  requests_per_connection: {FOREVER}
upstreams:
  origin:
    addresses: ["127.0.0.1:{origin_port}"]
routes:
  - name: cached
    match: {{path_prefix: /cached}}
    upstream: origin
  - name: plain
    match: {{path_prefix: /plain}}
    upstream: origin
    cache: off
cache:
  memory: 64MiB
admin:
  socket: "{folder}/edgeproxy-admin.sock"
access_log:
  to: "off"
log:
  level: warn
"""

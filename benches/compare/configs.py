"""The same service, written for five proxies: `/cached/` is kept for an hour, `/plain/` never.

Everybody gets one worker, no access log, connections to the origin that are kept open, the same
limits on requests per connection, and the forwarding fields that are usual.
"""

from pathlib import Path

# The files, and how large each is.
BODIES = {"1k": 1 << 10, "100k": 100 << 10, "1m": 1 << 20}
FOREVER = 1_000_000_000


def origin(folder, port):
    """nginx with a file of each size; every answer carries a fresh number, which unmasks a cache."""
    root = Path(folder) / "files"
    for name in ("cached", "plain"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for file, size in BODIES.items():
            (root / name / file).write_bytes(b"x" * size)
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
    location = /nothing {{
      return 204;
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
  max-object-size 2097152
  max-age 3600

frontend all
  bind 127.0.0.1:{plain} backlog 1024
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1 backlog 1024
  http-request return status 204 if {{ path /nothing }}
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


def varnish(origin_port):
    """The text of default.vcl. It speaks no TLS."""
    return f"""
vcl 4.1;

backend origin {{
  .host = "127.0.0.1";
  .port = "{origin_port}";
}}

sub vcl_recv {{
  set req.http.X-Forwarded-Proto = "http";
  if (req.url ~ "^/plain/") {{
    return (pass);
  }}
}}
"""


def trafficserver(folder, ports, origin_port, both):
    """Writes all that Traffic Server wants to read, and says where that begins."""
    plain, tls = ports
    root = Path(folder) / "trafficserver"
    for name in ("etc", "run", "log", "cache", "share"):
        (root / name).mkdir(parents=True, exist_ok=True)
    texts = {
        "runroot.yaml": "".join(
            f"{key}: {value}\n"
            for key, value in {
                "prefix": root,
                "exec_prefix": "/usr",
                "bindir": "/usr/bin",
                "sbindir": "/usr/sbin",
                "sysconfdir": root / "etc",
                "datadir": root / "share",
                "includedir": "/usr/include",
                "libdir": "/usr/lib/trafficserver",
                "libexecdir": "/usr/lib/trafficserver/modules",
                "localstatedir": root,
                "runtimedir": root / "run",
                "logdir": root / "log",
                "cachedir": root / "cache",
            }.items()
        ),
        "etc/records.config": f"""
CONFIG proxy.config.http.server_ports STRING {plain}:ip-in=127.0.0.1 {tls}:ip-in=127.0.0.1:ssl
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.cache.ram_cache.size INT 268435456
CONFIG proxy.config.cache.ram_cache_cutoff INT 4194304
CONFIG proxy.config.http.insert_squid_x_forwarded_for INT 1
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.ssl.server.multicert.filename STRING ssl_multicert.config
""",
        "etc/storage.config": f"{root}/cache 256M\n",
        "etc/remap.config": f"map / http://127.0.0.1:{origin_port}/\n",
        "etc/ssl_multicert.config": f"dest_ip=* ssl_cert_name={both}\n",
        "etc/ip_allow.yaml": "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
        "etc/plugin.config": "",
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    return root / "runroot.yaml"


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
  - name: nothing
    match: {{path: /nothing}}
    respond: {{status: 204}}
cache:
  memory: 64MiB
admin:
  socket: "{folder}/edgeproxy-admin.sock"
access_log:
  to: "off"
log:
  level: warn
"""

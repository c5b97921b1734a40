"""The package proxy: hits of 50 kB and of 50 MB, and what is fetched for the first time, beside nginx's proxy_cache as one would set it up.
The origin is an nginx of its own in the server's namespace; its CPU is not counted."""
import os

from common import OURS, SERVER, Area, Case, Server, Target, hostler, tcp_port

PORT, ORIGIN = 8_000, 8_099
HOST = f"127.0.0.1:{ORIGIN}"
SMALL, LARGE = 1_000, 4
NGINX = {"nginx": "on", "nginx, no cork": "off"}
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def root(field):
    return f"{field.work}/proxy-origin"


def prepare(field):
    os.makedirs(f"{root(field)}/pool", exist_ok=True)
    files = {**{f"small_{n}.deb": 50_000 for n in range(SMALL)}, **{f"large_{n}.deb": 50_000_000 for n in range(LARGE)}}
    for name, size in files.items():
        path = f"{root(field)}/pool/{name}"
        if not os.path.exists(path) or os.path.getsize(path) != size:
            with open(path, "wb") as f:
                f.write(os.urandom(size))


def nginx(field, name, http, workers=2):
    directory = field.fresh(name.replace(", ", "-").replace(" ", "-"))
    with open(f"{directory}/nginx.conf", "w") as f:
        f.write(f"""daemon off; user root; worker_processes {workers}; pid {directory}/pid; error_log {directory}/log warn;
worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}
http {{ access_log off; {' '.join(f'{kind}_temp_path {directory}/{kind};' for kind in TEMPORARY)}
sendfile on; keepalive_requests 1000000; {http.format(directory=directory)} }}""")
    return ["nginx", "-c", f"{directory}/nginx.conf", "-e", f"{directory}/log"]


class Behind(Server):
    """A proxy with its origin, which lives as long as the proxy."""

    def __init__(self, server):
        self.__dict__.update(server.__dict__)
        http = f'add_header Cache-Control "public, max-age=86400"; server {{{{ listen {HOST}; root {root(self.field)}; }}}}'
        self.origin = Server(self.field, "origin", nginx(self.field, "origin", http, workers=1), tcp_port(ORIGIN))

    def __enter__(self):
        self.origin.__enter__()
        try:
            return super().__enter__()
        except Exception:
            self.origin.__exit__()
            raise

    def __exit__(self, *why):
        super().__exit__(*why)
        self.origin.__exit__(*why)


def ours(field, _case):
    plan = {"listen": {"proxy": f"{SERVER}:{PORT}"}, "subnets": [{"id": 1, "cidr": "10.55.0.0/16"}]}
    env = {"HOSTLER_PROXY_ALLOW": "127.0.0.0/8", "HOSTLER_PROXY_PORTS": str(ORIGIN), "HOSTLER_PROXY_PER_CLIENT": "512",
           "HOSTLER_PROXY_CACHE_MEBIBYTES": "2048"}
    return Behind(hostler(field, "proxy", plan, tcp_port(PORT), env))


def cached(name):
    def make(field, _case):
        http = f"""tcp_nopush {NGINX[name]}; sendfile_max_chunk 2m;
proxy_cache_path {{directory}}/cache levels=1:2 keys_zone=z:50m max_size=2g inactive=1d use_temp_path=off;
server {{{{ listen {SERVER}:{PORT} backlog=4096; location / {{{{ proxy_pass http://$http_host$request_uri; proxy_cache z; proxy_cache_lock on;
proxy_cache_key $http_host$request_uri; proxy_cache_valid 200 1d; }}}} }}}}"""
        return Behind(Server(field, name, nginx(field, name, http), tcp_port(PORT)))
    return make


def get(field, path, clients, seconds, objects=1):
    return field.load("http", "--server", SERVER, "--port", PORT, "--host", HOST, "--target", f"http://{HOST}{path}",
                      "--objects", objects, "--clients", clients, "--seconds", seconds)


def measured(field, server, path, clients, seconds, objects):
    with server.spending() as spent:
        got = get(field, path, clients, seconds, objects)
    return {"cpu_us": spent.cpu * 1e6 / max(1, got["done"]), "cpu_ms_per_gb": spent.cpu * 1e6 / max(got["mb"], 0.001),
            "rate": got["done"] / got["seconds"], "mb_per_s": got["mb"] / got["seconds"], "p50_ms": got["p50_ms"],
            "p99_ms": got["p99_ms"], "wrong": got["wrong"], "pss_mb": server.pss_mb()}


def hits(kind, objects, clients):
    def measure(field, server):
        for number in range(objects):
            field.client("curl", "-sf", "-o", "/dev/null", "-x", f"http://{SERVER}:{PORT}", f"http://{HOST}/pool/{kind}_{number}.deb")
        return measured(field, server, f"/pool/{kind}_{{}}.deb", clients, 3, objects)
    return measure


def small_hits(clients):
    def measure(field, server):
        seen = 0
        while seen < SMALL:                                        # Each object once, by the load generator: curl would take a while.
            seen += get(field, "/pool/small_{}.deb", 4, 1, SMALL)["done"]
        return measured(field, server, "/pool/small_{}.deb", clients, 3, SMALL)
    return measure


def fills(field, server):
    """Each address once: nothing of it is here."""
    return measured(field, server, "/pool/small_0.deb?{}", 4, 3, 1_000_000)


HIT_SMALL, HIT_LARGE, FILL = "50 kB hits x50", ["50 MB hits x1", "50 MB hits x50"], "50 kB misses x4"
AREA = Area(
    name="proxy",
    servers={OURS: ours, **{name: cached(name) for name in NGINX}},
    cases=[Case(HIT_SMALL, small_hits(50)), Case(HIT_LARGE[0], hits("large", LARGE, 1)), Case(HIT_LARGE[1], hits("large", LARGE, 50)),
           Case(FILL, fills)],
    targets=[Target(HIT_SMALL, "rate", at_least=0.9, peers=tuple(NGINX)), Target(HIT_SMALL, "cpu_us", at_most=1.1, peers=tuple(NGINX)),
             *(Target(case, "mb_per_s", at_least=0.95, peers=tuple(NGINX)) for case in HIT_LARGE),
             *(Target(case, "cpu_ms_per_gb", at_most=1.1, peers=tuple(NGINX)) for case in HIT_LARGE)],
    programs={"nginx": "nginx-light", "curl": "curl"},
    prepare=prepare,
)

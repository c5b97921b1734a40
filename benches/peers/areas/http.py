"""HTTP: an image of 300 MB and small boot files over kept connections, beside nginx as one would set it up for either."""
import os

from common import OURS, SERVER, Area, Case, Server, Target, hostler, tcp_port

PORT = 5_248
FILES = {"image": 300_000_000, "k4": 4_096, "k50": 50_000}
NGINX = {"nginx": ("on", "on"), "nginx, no cork": ("on", "off"), "nginx, no sendfile": ("off", "off")}


def root(field):
    return f"{field.work}/http"


def prepare(field):
    os.makedirs(root(field), exist_ok=True)
    for name, size in FILES.items():
        path = f"{root(field)}/{name}"
        if os.path.exists(path) and os.path.getsize(path) == size:
            continue
        with open(path, "wb") as f:
            for at in range(0, size, 1 << 20):
                f.write(os.urandom(min(1 << 20, size - at)))


def ours(field, _case):
    subnet = {"id": 1, "cidr": "10.55.0.0/16", "rack_address": SERVER}
    files = [{"name": name, "path": f"{root(field)}/{name}"} for name in FILES]
    return hostler(field, "http", {"subnets": [subnet], "boot_files": files}, tcp_port(PORT))


def nginx(name):
    sendfile, nopush = NGINX[name]

    def make(field, _case):
        directory = field.fresh("nginx")
        with open(f"{directory}/nginx.conf", "w") as f:
            f.write(f"""daemon off; user root; worker_processes 2; pid {directory}/pid; error_log {directory}/log warn;
worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}
http {{ access_log off; {' '.join(f'{kind}_temp_path {directory}/{kind};' for kind in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))}
sendfile {sendfile}; sendfile_max_chunk 2m; tcp_nopush {nopush}; tcp_nodelay on; keepalive_requests 1000000; open_file_cache max=1000;
output_buffers 2 512k; server {{ listen {SERVER}:{PORT} backlog=4096; root {root(field)}; }} }}""")
        return Server(field, name, ["nginx", "-c", f"{directory}/nginx.conf", "-e", f"{directory}/log"], tcp_port(PORT))
    return make


def asking(file, clients, seconds=3):
    def measure(field, server):
        with server.spending() as spent:
            got = field.load("http", "--server", SERVER, "--port", PORT, "--target", f"/{file}", "--clients", clients,
                             "--seconds", seconds)
        return {"cpu_ms_per_gb": spent.cpu * 1e6 / got["mb"], "cpu_us": spent.cpu * 1e6 / max(1, got["done"]),
                "mb_per_s": got["mb"] / got["seconds"], "rate": got["done"] / got["seconds"], "p50_ms": got["p50_ms"],
                "p99_ms": got["p99_ms"], "wrong": got["wrong"]}
    return measure


IMAGE, SMALL = ["300 MB x1", "300 MB x50"], ["4 kB x50", "50 kB x50"]
AREA = Area(
    name="http",
    servers={OURS: ours, **{name: nginx(name) for name in NGINX}},
    cases=[Case(IMAGE[0], asking("image", 1)), Case(IMAGE[1], asking("image", 50)),
           Case(SMALL[0], asking("k4", 50)), Case(SMALL[1], asking("k50", 50))],
    targets=[*(Target(case, "cpu_ms_per_gb", at_most=1.1, peers=tuple(NGINX)) for case in IMAGE),
             *(Target(case, "cpu_us", at_most=1.2, peers=tuple(NGINX)) for case in SMALL)],
    programs={"nginx": "nginx-light"},
    prepare=prepare,
)

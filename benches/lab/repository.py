"""A small real repository of one package, made by Debian's own tools and served where only racks reach it."""
import os
import subprocess
import sys

from lab import MGMT_NET, run

ADDRESS = f"{MGMT_NET}.20"
PACKAGE, GREETING = "hostler-hello", "hello from the repository"


def make(directory):
    """DIRECTORY/debian with suite `lab`, component main."""
    package, repo = f"{directory}/{PACKAGE}", f"{directory}/www/debian"
    os.makedirs(f"{package}/DEBIAN")
    os.makedirs(f"{package}/usr/share/{PACKAGE}")
    os.makedirs(f"{repo}/pool/main")
    os.makedirs(f"{repo}/dists/lab/main/binary-amd64")
    with open(f"{package}/DEBIAN/control", "w") as f:
        f.write(f"Package: {PACKAGE}\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: says hello\n")
    with open(f"{package}/usr/share/{PACKAGE}/greeting", "w") as f:
        f.write(f"{GREETING}\n")
    run("dpkg-deb", "--root-owner-group", "-b", package, f"{repo}/pool/main/{PACKAGE}_1.0_all.deb")
    for path, words in (("main/binary-amd64/Packages", ["packages", "pool"]), ("Release", ["release", "dists/lab"])):
        fields = [f"APT::FTPArchive::Release::{field}" for field in ("Suite=lab", "Components=main", "Architectures=amd64")]
        text = run("apt-ftparchive", *(word for field in fields for word in ("-o", field)), *words, cwd=repo)
        with open(f"{repo}/dists/lab/{path}", "w") as f:
            f.write(text)


def serve(lab):
    """A host of its own on the management wire that serves it; returns its log's path."""
    directory, ns = f"{lab.work}/repository", f"{lab.name}-repo"
    make(directory)
    run("ip", "netns", "add", ns)
    run("ip", "-n", ns, "link", "set", "lo", "up")
    lab.namespaces.append(ns)
    lab.leg("mgmt0", ns, ADDRESS)
    lab.spawn("repository", [sys.executable, "-u", "-m", "http.server", "80", "--bind", ADDRESS, "--directory", f"{directory}/www"], ns)
    ready = ["ip", "netns", "exec", ns, "curl", "-sf", "-o", "/dev/null", f"http://{ADDRESS}/debian/dists/lab/Release"]
    lab.wait(lambda: subprocess.run(ready, check=False).returncode == 0, 20, "repository")
    return f"{lab.work}/repository.log"


# A commissioning script: packages come through the proxy that the preseed named, and from nowhere else.
SCRIPT = f"""#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: lab-packages
# title: A package through the rack's proxy
# script_type: commissioning
# timeout: 0:05:00
# --- End MAAS 1.0 script metadata ---
set -eu
grep -h 'Acquire::http::Proxy "http://.*:8000/";' /etc/apt/apt.conf.d/*
rm -rf /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] http://{ADDRESS}/debian lab main' > /etc/apt/sources.list
apt-get -q update
apt-get -q -y install {PACKAGE}
cat /usr/share/{PACKAGE}/greeting
"""

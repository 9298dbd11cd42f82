"""A Dockerfile without a container engine: every stage is a folder that debootstrap filled, every RUN a command
in a chroot there. It knows the instructions that deploy/Dockerfile uses, and refuses others."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile

import dockerfile_parse

# This machine's authorities, and how it reaches the package index: a proxy of its own may stand between.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
NETWORK = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")

# $1: root, $2: a folder for the compiler's cache, the rest: the command
RUN = """set -e
mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"
cp /etc/resolv.conf "$1/etc/resolv.conf"
mount -t tmpfs tmpfs "$1/mnt"; [ ! -e "%s" ] || cp "%s" "$1/mnt/authorities.pem"
mkdir -p "$1/root/.cache/ccache"; mount --bind "$2" "$1/root/.cache/ccache"
root=$1; shift 2
exec chroot "$root" "$@" """ % (AUTHORITIES, AUTHORITIES)


class Image:
    """The last stage's folder, and what the image says of its containers."""

    def __init__(self, source, folder, cache, arguments):
        self.source, self.folder, self.cache = source, folder, cache
        with tempfile.TemporaryDirectory() as scratch:
            parser = dockerfile_parse.DockerfileParser(path=scratch)
            with open(os.path.join(source, "deploy", "Dockerfile")) as file:
                parser.content = file.read()
            self.steps = [s for s in parser.structure if s["instruction"] != "COMMENT"]
        self.given, self.variables = arguments, {}
        self.roots, self.root, self.settings = {}, None, {}
        self.environment, self.directory = {}, "/"
        for step in self.steps:
            if step["instruction"] == "FROM":
                self.begin(step["value"])
            else:
                getattr(self, "do_" + step["instruction"].lower())(step["value"])

    def begin(self, value):
        name = value.split()[2] if " AS " in value else "last"
        self.root = self.roots[name] = os.path.join(self.folder, name)
        subprocess.run(["cp", "-a", self.base(), self.root], check=True)
        self.settings, self.environment, self.directory = {}, {}, "/"

    def base(self):
        """A bare Debian, as FROM names it."""
        base = os.path.join(self.folder, "base")
        if not os.path.isdir(base):
            packages = os.path.join(self.cache, "debian-12-packages")
            os.makedirs(packages, exist_ok=True)
            self.call(["debootstrap", "--variant=minbase", f"--cache-dir={packages}", "bookworm", base])
        return base

    def call(self, command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")

    def fill(self, text):
        return re.sub(r"\$\{(\w+)\}", lambda m: self.variables[m[1]], text)

    def do_arg(self, value):
        name, _, default = value.partition("=")
        self.variables[name] = self.given.get(name, default)

    def do_env(self, value):
        self.environment.update(pair.split("=", 1) for pair in shlex.split(value))

    def do_workdir(self, value):
        self.directory = value
        os.makedirs(self.root + value, exist_ok=True)

    def do_copy(self, value):
        words = value.split()
        if words[0].startswith("--from="):
            other = self.roots[words[0][len("--from="):]]
            subprocess.run(["cp", "-a", other + words[1] + ".", self.root + words[2]], check=True)
        elif words[0] == ".":
            self.copy_source()
        else:
            target = self.root + words[1]
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.join(self.source, words[0]), target)

    def copy_source(self):
        """The context: what git knows of, which is less than .dockerignore lets through."""
        listed = subprocess.run(["git", "-C", self.source, "ls-files", "-z"], capture_output=True, check=True).stdout
        tar = subprocess.run(["tar", "-C", self.source, "--null", "-T", "-", "-c"], input=listed,
                             capture_output=True, check=True).stdout
        subprocess.run(["tar", "-C", self.root + self.directory, "-x", "--no-same-owner"], input=tar, check=True)

    def do_run(self, value):
        compiled = os.path.join(self.cache, "container-ccache")
        os.makedirs(compiled, exist_ok=True)
        network = [f"{name}={os.environ[name]}" for name in NETWORK if name in os.environ]
        network += ["PIP_CERT=/mnt/authorities.pem"] if os.path.exists(AUTHORITIES) else []
        self.call(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", RUN, "run", self.root,
                   compiled, "/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "HOME=/root", *network, "sh", "-c", f"cd {self.directory} && {self.fill(value)}"])

    def keep(name):  # what runtimes read
        def do(self, value):
            self.settings[name] = value
        return do
    do_user, do_entrypoint, do_cmd = keep("user"), keep("entrypoint"), keep("cmd")
    do_healthcheck, do_expose, do_stopsignal = keep("healthcheck"), keep("expose"), keep("stopsignal")

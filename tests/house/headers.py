"""Compiles every header of the house alone, with the flags its own library is built with (compile_commands.json of the build
folder given). Prints what fails, and on the last line "PASSED FAILED"."""
import concurrent.futures
import json
import os
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def flags_by_folder(build):
    """Include paths, definitions and the language level of one source in each folder."""
    flags = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            folder = os.path.dirname(os.path.relpath(entry["file"], ROOT))
            words = shlex.split(entry["command"])
            kept, take = [], False
            for word in words:
                if take or word.startswith(("-I", "-D", "-std", "-isystem", "-f", "-m")):
                    kept.append(word)
                    take = word == "-isystem"
            flags.setdefault(folder, kept)
    return flags


def compile_alone(header, flags):
    ran = subprocess.run(["g++", "-fsyntax-only", "-x", "c++", "-Wno-pragma-once-outside-header", *flags,
                          os.path.join(ROOT, header)], capture_output=True, text=True)
    return None if ran.returncode == 0 else ran.stderr.strip().split("\n")[0]


def main(build):
    flags = flags_by_folder(build)
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.hpp"], capture_output=True, text=True,
                            check=True).stdout.split()
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for header in listed:
            folder = os.path.dirname(header)
            # A folder without a source of its own (tests/support) borrows the flags of the nearest one that has some.
            near = folder
            while near and near not in flags:
                near = os.path.dirname(near)
            chosen = flags.get(near) or next(iter(flags.values()))
            jobs[header] = pool.submit(compile_alone, header, chosen)
    failed = 0
    for header, job in jobs.items():
        if job.result() is not None:
            failed += 1
            print(f"FAIL: {header} does not compile alone: {job.result()}")
    print(len(jobs) - failed, failed)


if __name__ == "__main__":
    main(sys.argv[1])

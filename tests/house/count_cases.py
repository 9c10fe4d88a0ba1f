"""Counts test cases in ctest's LastTest.log.

A doctest program and a Python unittest say how many cases they ran; any other test counts as one. A program that fails
without failing a case (it crashed, ran into its time limit, or could not start) counts as one failed case more. Prints the
programs that failed, and on the last line "PASSED FAILED". With the log of a second run of those that failed, its results
count for them, and each program that needed it is named.
"""
import re
import sys

DOCTEST = re.compile(r"\[doctest\] test cases:\s*(\d+) \|\s*(\d+) passed \|\s*(\d+) failed")
UNITTEST = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
UNITTEST_FAILED = re.compile(r"^FAILED \((.*)\)", re.MULTILINE)
BLOCK = re.compile(r"^\d+/\d+ Testing: (.+)$", re.MULTILINE)


def cases(text, program_passed):
    """(passed, failed) of one program's output."""
    passed = failed = 0
    found = DOCTEST.findall(text)
    if found:
        # A program may print several summaries, for example of child processes; the last is its own.
        passed, failed = int(found[-1][1]), int(found[-1][2])
    elif ran := UNITTEST.findall(text):
        total = sum(map(int, ran))
        bad = UNITTEST_FAILED.findall(text)
        failed = sum(int(n) for part in bad for n in re.findall(r"(?:failures|errors)=(\d+)", part))
        passed = max(0, total - failed)
    elif program_passed:
        passed = 1
    if not program_passed and failed == 0:
        failed = 1
    return passed, failed


def programs(log):
    """{name: (passed, failed)} of each program in a log; None where there is no log."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        print(f"FAIL: no log of ctest: {error.strerror}")
        return None
    found = {}
    starts = [(match.start(), match.group(1)) for match in BLOCK.finditer(text)]
    for index, (start, name) in enumerate(starts):
        end = starts[index + 1][0] if index + 1 < len(starts) else len(text)
        block = text[start:end]
        # ctest ends each block with its verdict.
        found[name] = cases(block, re.search(r"^Test Passed\.$", block, re.MULTILINE) is not None)
    return found


def with_second_run(first, second):
    """(results, names that failed at first and passed alone)"""
    unsteady = [name for name, (_, failed) in second.items() if failed == 0]
    return {**first, **second}, unsteady


def main(log, ctest_status, second_log=None):
    results = programs(log)
    second = programs(second_log) if second_log else {}
    if results is None or second is None:
        print("0 1")
        return
    results, unsteady = with_second_run(results, second)
    for name in unsteady:
        print(f"UNSTEADY: {name}: failed beside other tests, passed alone")
    for name, (passed, failed) in results.items():
        if failed:
            print(f"FAIL: {name}: {failed} of {passed + failed} cases")
    total_failed = sum(failed for _, failed in results.values())
    if ctest_status != 0 and total_failed == 0:
        print("FAIL: ctest failed without a failed test")
        total_failed = 1
    print(sum(passed for passed, _ in results.values()), total_failed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4])

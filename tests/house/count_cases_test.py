"""Tests of count_cases."""
import unittest

from count_cases import cases, with_second_run

DOCTEST = "[doctest] test cases:  7 |  6 passed | 1 failed | 0 skipped\n"


class Counting(unittest.TestCase):
    def test_doctest_says_how_many(self):
        self.assertEqual(cases("[doctest] test cases: 44 | 44 passed | 0 failed | 3 skipped\n", True), (44, 0))
        self.assertEqual(cases(DOCTEST, False), (6, 1))

    def test_the_last_summary_counts(self):
        self.assertEqual(cases(DOCTEST + "[doctest] test cases: 2 | 2 passed | 0 failed |\n", True), (2, 0))

    def test_unittest_says_how_many(self):
        self.assertEqual(cases("Ran 5 tests in 0.1s\n\nOK\n", True), (5, 0))
        self.assertEqual(cases("Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=2)\n", False), (2, 3))

    def test_any_other_program_is_one_case(self):
        self.assertEqual(cases("all well\n", True), (1, 0))
        self.assertEqual(cases("oh no\n", False), (0, 1))

    def test_a_crash_is_a_failure_of_its_own(self):
        self.assertEqual(cases("[doctest] test cases: 3 | 3 passed | 0 failed |\n", False), (3, 1))
        self.assertEqual(cases("", False), (0, 1))

    def test_a_second_run_counts_for_what_failed_in_the_first(self):
        first = {"a": (3, 0), "b": (2, 1), "c": (0, 1)}
        results, unsteady = with_second_run(first, {"b": (3, 0), "c": (0, 1)})
        self.assertEqual(results, {"a": (3, 0), "b": (3, 0), "c": (0, 1)})
        self.assertEqual(unsteady, ["b"])


if __name__ == "__main__":
    unittest.main()

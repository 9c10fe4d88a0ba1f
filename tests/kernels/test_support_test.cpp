#include "tests/support/test.hpp"

#include <stdexcept>
#include <string>
#include <vector>

// What our tests rely on, so that doctest and its stand-in are known to do the same.

namespace {

std::string visited;

struct counting_fixture {
  counting_fixture() { ++made; }
  static inline int made = 0;
  int value = 7;
};

} // namespace

TEST_CASE("a test case runs once for each path through its subcases") {
  visited += '(';
  SUBCASE("first") {
    visited += 'a';
    SUBCASE("inner one") {
      visited += '1';
    }
    SUBCASE("inner two") {
      visited += '2';
    }
  }
  SUBCASE("second") {
    visited += 'b';
  }
  visited += ')';
}

TEST_CASE("subcases were visited in order") {
  CHECK_EQ(visited, "(a1)(a2)(b)");
}

TEST_CASE_FIXTURE(counting_fixture, "a fixture is made for the test case") {
  CHECK_EQ(value, 7);
  CHECK(made >= 1);
}

TEST_CASE("Approx is near, not equal") {
  CHECK(1.0 == doctest::Approx(1.000001).epsilon(1e-5));
  CHECK(1.0 != doctest::Approx(1.1).epsilon(1e-5));
  CHECK(doctest::Approx(1000.0).epsilon(0.01) == 1005.0);
  CHECK_FALSE(doctest::Approx(1000.0).epsilon(0.001) == 1005.0);
}

TEST_CASE("messages and comparisons take what tests give them") {
  INFO("a number " << 3 << " and a truth " << true);
  CAPTURE(visited);
  CHECK_MESSAGE(2 + 2 == 4, "sums " << 4);
  REQUIRE_MESSAGE(true, "nothing");
  CHECK_NE(1, 2);
  CHECK_LT(1, 2);
  CHECK_GE(2, 2);
  REQUIRE_EQ(std::string("a"), "a");
  REQUIRE_FALSE(std::vector<int>{1}.empty());
  CHECK_NOTHROW(std::stoi("1"));
  CHECK_THROWS_AS(std::stoi("x"), std::invalid_argument);
}

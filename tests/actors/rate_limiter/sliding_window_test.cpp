#include "actors/rate_limiter/sliding_window.hpp"
#include "tests/support/test.hpp"

#include <deque>
#include <random>
#include <string>

using namespace neuroshard;

namespace {

constexpr int64_t second = 1'000'000;

admit_request by(std::string who, limit_class of = limit_class::wallet) {
  return {std::move(who), of, false};
}

} // namespace

TEST_CASE("a window admits its limit, then refuses until the oldest request is 60 s old") {
  sliding_window windows{rate_limits{.wallet = 3}};
  for (int i = 0; i < 3; ++i) {
    const auto v = windows.admit(by("a"), i * second);
    CHECK(v.allowed);
    CHECK(v.limit == 3);
    CHECK(v.remaining == static_cast<uint32_t>(2 - i));
    CHECK(v.reset_s == 60);
  }
  auto refused = windows.admit(by("a"), 10 * second);
  CHECK_FALSE(refused.allowed);
  CHECK(refused.remaining == 0);
  CHECK(refused.retry_after_s == 50);
  CHECK(refused.reset_s == 52);
  CHECK_FALSE(windows.admit(by("a"), 60 * second - 1).allowed);
  CHECK(windows.admit(by("a"), 60 * second).allowed);
}

TEST_CASE("a refused request consumes no quota") {
  sliding_window windows{rate_limits{.wallet = 1}};
  CHECK(windows.admit(by("a"), 0).allowed);
  for (int64_t t = 1; t < 60; ++t)
    CHECK_FALSE(windows.admit(by("a"), t * second).allowed);
  CHECK(windows.admit(by("a"), 60 * second).allowed);
}

TEST_CASE("Retry-After is at least one second") {
  sliding_window windows{rate_limits{.wallet = 1}};
  CHECK(windows.admit(by("a"), 0).allowed);
  CHECK(windows.admit(by("a"), 60 * second - 1).retry_after_s == 1);
}

TEST_CASE("identities and classes do not share a budget") {
  sliding_window windows{rate_limits{.status = 1, .wallet = 1}};
  CHECK(windows.admit(by("a"), 0).allowed);
  CHECK(windows.admit(by("b"), 0).allowed);
  CHECK(windows.admit(by("a", limit_class::status), 0).allowed);
  CHECK_FALSE(windows.admit(by("a"), 0).allowed);
}

TEST_CASE("a limit of zero is unlimited and asks for no headers") {
  sliding_window windows{rate_limits{.status = 0}};
  for (int i = 0; i < 1000; ++i) {
    const auto v = windows.admit(by("a", limit_class::status), 0);
    CHECK(v.allowed);
    CHECK(v.limit == 0);
  }
  CHECK(windows.windows() == 0);
}

TEST_CASE("a peek tells the budget without spending it") {
  sliding_window windows{rate_limits{.auth_failures = 1}};
  admit_request look{"ip", limit_class::auth_failures, true};
  CHECK(windows.admit(look, 0).remaining == 1);
  CHECK(windows.windows() == 0);
  CHECK(windows.admit(by("ip", limit_class::auth_failures), 0).allowed);
  CHECK_FALSE(windows.admit(look, 1).allowed);
}

TEST_CASE("a limit that was lowered holds at once") {
  sliding_window windows{rate_limits{.wallet = 5}};
  for (int i = 0; i < 5; ++i)
    CHECK(windows.admit(by("a"), i * second).allowed);
  windows.set_limits(rate_limits{.wallet = 2});
  const auto v = windows.admit(by("a"), 10 * second);
  CHECK_FALSE(v.allowed);
  CHECK(v.retry_after_s == 53);
  CHECK(windows.admit(by("a"), 63 * second).allowed);
}

TEST_CASE("memory is bounded: the identity that was quiet longest is forgotten") {
  sliding_window windows{rate_limits{.wallet = 1}, 2};
  CHECK(windows.admit(by("a"), 0).allowed);
  CHECK(windows.admit(by("b"), 1).allowed);
  CHECK(windows.admit(by("c"), 2).allowed);
  CHECK(windows.windows() == 2);
  CHECK_FALSE(windows.admit(by("c"), 3).allowed);
  CHECK(windows.admit(by("a"), 4).allowed);
  windows.expire(61 * second);
  CHECK(windows.windows() == 0);
}

TEST_CASE("any sequence agrees with a list of all admitted times") {
  std::mt19937_64 random{7};
  sliding_window windows{rate_limits{.wallet = 10}};
  std::deque<int64_t> admitted;
  int64_t now = 0;
  for (int i = 0; i < 20'000; ++i) {
    now += static_cast<int64_t>(random() % (10 * second));
    while (!admitted.empty() && admitted.front() <= now - sliding_window::window_us)
      admitted.pop_front();
    const bool expected = admitted.size() < 10;
    const auto v = windows.admit(by("a"), now);
    REQUIRE(v.allowed == expected);
    if (expected)
      admitted.push_back(now);
    REQUIRE(v.remaining == 10 - admitted.size());
  }
}

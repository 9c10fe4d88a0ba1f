#include "actors/common/error.hpp"
#include "tests/support/test.hpp"

#include <caf/sec.hpp>

#include <set>
#include <string>

using namespace neuroshard;

TEST_CASE("a refusal carries its code and its problem") {
  problem what;
  what.message = "Wallet balance 7.5 NEURO is less than required 20.02 NEURO";
  what.field = "amount";
  what.reason = "funds";
  what.details = {{"required", neuro_amount{20}}, {"free", true}, {"who", std::string("me")}};
  const caf::error e = refuse(errc::insufficient_balance, what);
  CHECK(static_cast<bool>(e));
  CHECK(code_of(e) == errc::insufficient_balance);
  const problem back = problem_of(e);
  CHECK(back.message == what.message);
  CHECK(back.field == "amount");
  CHECK(back.reason == "funds");
  REQUIRE(back.details.size() == 3);
  CHECK(back.details[0].first == "required");
  CHECK(std::get<neuro_amount>(back.details[0].second).atto == 20);
  CHECK(std::get<bool>(back.details[1].second));
}

TEST_CASE("no error has the code ok") {
  CHECK(code_of(caf::error{}) == errc::ok);
}

TEST_CASE("errors of the actor system become timeout, unavailable or internal") {
  CHECK(code_of(caf::make_error(caf::sec::request_timeout)) == errc::timeout);
  CHECK(code_of(caf::make_error(caf::sec::request_receiver_down)) == errc::unavailable);
  CHECK(code_of(caf::make_error(caf::sec::unexpected_message)) == errc::internal);
  CHECK(problem_of(caf::make_error(caf::sec::request_timeout)).message == "timeout");
}

TEST_CASE("each code has a word of its own") {
  std::set<std::string> words;
  const int last = static_cast<int>(errc::internal);
  for (int i = 0; i <= last; ++i)
    words.insert(to_string(static_cast<errc>(i)));
  CHECK(words.size() == static_cast<size_t>(last) + 1);
}

TEST_CASE("an expected value holds a refusal") {
  const caf::expected<int> none = refuse(errc::not_found, "No such thing.");
  REQUIRE(!none);
  CHECK(code_of(none.error()) == errc::not_found);
  CHECK(problem_of(none.error()).message == "No such thing.");
}

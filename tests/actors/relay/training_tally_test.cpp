#include "actors/relay/training_tally.hpp"

#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

const std::string binder(32, 'd');
constexpr int64_t begun_ms = 1'800'000'000'000;

struct training_fixture {
  node_identity me = std::move(*node_identity::make(*parse_token("correct-horse"), 0, begun_ms));
  counting_random random;
  training_tally tally;
  std::vector<int32_t> labels = {5, -100, 7, 8};

  forward_request call(uint64_t step, std::string session = "s") {
    forward_request made;
    made.mode = forward_mode::train;
    made.header.session_id = std::move(session);
    made.header.model_version = 9;
    made.layer_begin = 1;
    made.layer_end = 3;
    made.step = step;
    made.apply_head = true;
    made.labels.view = kernels::make_tensor(labels.data(), kernels::dtype::i32, {2, 2});
    return made;
  }
  std::optional<receipt> release(const std::string& by = binder, const std::string& session = "s") {
    const auto blob = tally.release(session, by, me, random, begun_ms + 9);
    if (!blob)
      return std::nullopt;
    const auto read = read_receipt(encode_signed_blob(*blob), {}, begun_ms);
    REQUIRE(read);
    return read->what;
  }
};

} // namespace

TEST_CASE_FIXTURE(training_fixture, "a stage's receipt tells of the label tokens and steps it committed") {
  tally.bind(call(0), binder, begun_ms);
  tally.train(call(1), true);
  tally.train(call(1), true);
  tally.commit("s", 1);
  tally.commit("s", 1);       // said again
  tally.train(call(2), true); // the driver gave it up
  tally.discard("s", 2);
  tally.train(call(2), true); // and did it again
  tally.train(call(3), true); // which committed it
  const auto made = release();
  REQUIRE(made);
  CHECK(made->kind == receipt_kind::training);
  CHECK(made->work_id == "s");
  CHECK(made->steps == 2);
  CHECK(made->tokens == 9); // the third was never committed
  CHECK(made->layer_begin == 1);
  CHECK(made->layer_end == 3);
  CHECK(made->model_version == 9);
  CHECK(made->head);
  CHECK_FALSE(made->embedding);
  CHECK(release() == made);
  tally.bind(call(0), binder, begun_ms);
  CHECK_FALSE(release());
}

TEST_CASE_FIXTURE(training_fixture, "only who bound the stage gets a receipt, and only of its session") {
  CHECK_FALSE(release(binder, ""));
  tally.bind(call(0), binder, begun_ms);
  tally.train(call(1, "other"), true);
  tally.commit("other", 1);
  CHECK_FALSE(release());
  tally.train(call(1), false);
  tally.commit("s", 1);
  CHECK_FALSE(release(std::string(32, 'e')));
  CHECK_FALSE(release(binder, "other"));
  REQUIRE(release());
  CHECK_FALSE(release()->head); // the route went on from here
}

TEST_CASE_FIXTURE(training_fixture, "steps that are begun and never ended are bounded") {
  tally.bind(call(0), binder, begun_ms);
  for (uint64_t step = 1'000; step > 0; --step)
    tally.train(call(step), true);
  tally.commit("s", 1);
  REQUIRE(release());
  CHECK(release()->steps == 1);
}

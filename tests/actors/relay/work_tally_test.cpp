#include "actors/relay/work_tally.hpp"

#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

const std::string driver(32, 'd');
constexpr int64_t now_ms = 1'800'000'000'000;

struct tally_fixture {
  node_identity me = std::move(*node_identity::make(*parse_token("correct-horse"), 0, now_ms));
  counting_random random;
  work_tally tally;
  std::vector<int32_t> ids = std::vector<int32_t>(64, 1);

  forward_request call(forward_mode mode, std::vector<std::string> sessions, int64_t seq) {
    forward_request made;
    made.mode = mode;
    made.layer_begin = 1;
    made.layer_end = 3;
    made.header.model_version = 7;
    for (auto& one : sessions)
      made.rows.push_back({one, 0, std::nullopt, "inf_" + one, false});
    made.hidden.view = kernels::make_tensor(ids.data(), kernels::dtype::i32,
                                            {static_cast<int64_t>(sessions.size()), seq, 1});
    return made;
  }
  void count(const forward_request& of, std::vector<row_status> how = {}, bool last = false) {
    std::vector<row_reply> rows(of.rows.size());
    for (size_t i = 0; i < how.size(); ++i)
      rows[i].status = how[i];
    tally.count(of, rows, last, 1, now_ms);
  }
  std::vector<receipt> end(const std::string& session, const std::string& by = driver) {
    forward_request made = call(forward_mode::decode, {session}, 1);
    made.hidden = {};
    made.rows[0].close = true;
    std::vector<receipt> all;
    for (const auto& blob : tally.end(made, by, me, random, now_ms + 5)) {
      const auto read = read_receipt(encode_signed_blob(blob), {}, now_ms);
      REQUIRE(read);
      all.push_back(read->what);
    }
    return all;
  }
};

} // namespace

TEST_CASE_FIXTURE(tally_fixture, "a receipt tells of the positions of its session that were computed here") {
  auto prompt = call(forward_mode::prefill, {"a", "b"}, 8);
  prompt.sequence_lengths = {8, 5};
  count(prompt);
  count(call(forward_mode::decode, {"a", "b"}, 1), {row_status::ok, row_status::evicted});
  count(call(forward_mode::decode, {"a"}, 1));
  const auto made = end("a");
  REQUIRE(made.size() == 1);
  CHECK(made[0].worker_node_id == me.node_id());
  CHECK(made[0].driver_node_id == driver);
  CHECK(made[0].kind == receipt_kind::inference);
  CHECK(made[0].work_id == "inf_a");
  CHECK(made[0].tokens == 10);
  CHECK(made[0].layer_begin == 1);
  CHECK(made[0].layer_end == 3);
  CHECK(made[0].model_version == 7);
  CHECK_FALSE(made[0].head);
  CHECK_FALSE(made[0].embedding);
  CHECK(made[0].started_unix_ms == now_ms);
  CHECK(made[0].ended_unix_ms == now_ms + 5);
  REQUIRE(end("b").size() == 1);
  CHECK(end("b")[0].tokens == 5);
}

TEST_CASE_FIXTURE(tally_fixture, "the head is told of where it ran, the embedding where token ids came") {
  auto first = call(forward_mode::prefill, {"a"}, 4);
  first.apply_head = true;
  count(first, {}, false);
  first.token_ids = std::exchange(first.hidden, {});
  first.rows[0].session_id = "b";
  count(first, {}, true);
  CHECK_FALSE(end("a").at(0).head);
  CHECK(end("b").at(0).head);
  CHECK(end("b").at(0).embedding);
}

TEST_CASE_FIXTURE(tally_fixture,
                  "a session that is closed again has the same receipt, and only its driver gets it") {
  count(call(forward_mode::prefill, {"a"}, 4));
  const auto first = end("a");
  CHECK(end("a") == first);
  CHECK(end("a", std::string(32, 'e')).empty());
  CHECK(end("unknown").empty());
  count(call(forward_mode::prefill, {"a"}, 3)); // a new one under the old id
  const auto next = end("a");
  REQUIRE(next.size() == 1);
  CHECK(next[0].tokens == 3);
  CHECK(next[0].nonce != first[0].nonce);
}

TEST_CASE_FIXTURE(tally_fixture, "work without a name, failed rows and training are not counted") {
  auto nameless = call(forward_mode::prefill, {"a"}, 4);
  nameless.rows[0].request_id.clear();
  count(nameless);
  count(call(forward_mode::score, {"a"}, 4));
  count(call(forward_mode::prefill, {"a"}, 4), {row_status::no_memory});
  CHECK(tally.size() == 0);
  CHECK(end("a").empty());
}

TEST_CASE_FIXTURE(tally_fixture, "what it remembers is bounded in number and time") {
  for (size_t i = 0; i < work_tally::sessions_max + 10; ++i)
    count(call(forward_mode::decode, {std::to_string(i)}, 1));
  CHECK(tally.size() == work_tally::sessions_max);
  tally.forget_idle(work_tally::forgotten_us);
  CHECK(tally.size() == work_tally::sessions_max);
  tally.forget_idle(work_tally::forgotten_us + 1);
  CHECK(tally.size() == 0);
}

#include "tests/support/test.hpp"

#include "actors/common/error.hpp"
#include "gateway/config/network_parameters.hpp"
#include "gateway/config/schema.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

#include <string>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// The field of a refusal, or "taken".
std::string outcome(const std::string& parameters, const node_config& own = default_config()) {
  const auto next = with_network_parameters(own, small_machine(), parameters);
  if (next)
    return "taken";
  CHECK(code_of(next.error()) == errc::invalid_request);
  return problem_of(next.error()).field;
}

} // namespace

TEST_CASE("network parameters are written with ascending keys and no blanks, and read back to the same") {
  auto c = default_config();
  const auto text = network_parameters(c);
  CHECK(text.starts_with(R"({"aggregation":"trimmed_mean","batch_size":8,"compression":"dense_i8",)"));
  CHECK(text.find(' ') == std::string::npos);
  c.training.learning_rate = 0.0125;
  c.training.decay_steps = 12'345;
  c.training.aggregation = "krum";
  c.training.diloco_steps = 7;
  c.training.seq_len = 64;
  const auto joined = with_network_parameters(default_config(), small_machine(), network_parameters(c));
  REQUIRE(joined);
  CHECK(network_parameters(*joined) == network_parameters(c));
  CHECK(joined->training.learning_rate == 0.0125);
}

TEST_CASE("the tokenizer is told in its place, and read only where it is a hash") {
  const std::string hash(64, 'a');
  const auto text = network_parameters(default_config(), hash);
  CHECK(text.find(R"(,"tokenizer":")" + hash + R"(","top_k_ratio":)") != std::string::npos);
  CHECK(tokenizer_in(text) == hash);
  CHECK(outcome(text) == "taken");
  CHECK(tokenizer_in(network_parameters(default_config())).empty());
  for (const std::string wrong : {"", "[]", R"({"tokenizer":7})", R"({"tokenizer":"abc"})"})
    CHECK(tokenizer_in(wrong).empty());
  CHECK(tokenizer_in(R"({"tokenizer":")" + std::string(64, 'Z') + "\"}").empty());
}

TEST_CASE("a node that joins keeps what the network says nothing of, and its own smaller batch") {
  auto own = default_config();
  own.training.batch_size = 2;
  own.training.microbatches = 2;
  own.data.held_out = 0.25;
  const auto joined = with_network_parameters(
      own, small_machine(), R"({"batch_size":16,"learning_rate":0.5,"who":["knows"],"held_out":0.9})");
  REQUIRE(joined);
  CHECK(joined->training.batch_size == 2);
  CHECK(joined->training.learning_rate == 0.5);
  CHECK(joined->training.outer_lr == own.training.outer_lr);
  CHECK(joined->data.held_out == 0.25);
  own.training.batch_size = 8;
  own.training.microbatches = 8;
  const auto smaller = with_network_parameters(own, small_machine(), R"({"batch_size":3})");
  REQUIRE(smaller);
  CHECK(smaller->training.batch_size == 3);
  CHECK(smaller->training.microbatches == 3);
}

TEST_CASE("limits that depend on each other are judged by what the network has") {
  auto own = default_config();
  own.training.warmup_steps = 10;
  own.training.decay_steps = 20;
  CHECK(outcome(R"({"decay_steps":5000,"warmup_steps":4000})", own) == "taken");
  CHECK(outcome(R"({"decay_steps":50,"warmup_steps":51})", own) == "training.warmup_steps");
}

TEST_CASE("parameters no configuration may have are refused by name, and whatever is no object") {
  CHECK(outcome(R"({"learning_rate":0})") == "training.learning_rate");
  CHECK(outcome(R"({"learning_rate":1e9})") == "training.learning_rate");
  CHECK(outcome(R"({"learning_rate":"fast"})") == "training.learning_rate");
  CHECK(outcome(R"({"diloco_steps":0})") == "training.diloco_steps");
  CHECK(outcome(R"({"diloco_steps":1.5})") == "training.diloco_steps");
  CHECK(outcome(R"({"seq_len":1000000000})") == "training.seq_len");
  CHECK(outcome(R"({"aggregation":"mine"})") == "training.aggregation");
  CHECK(outcome(R"({"aggregation":"median","compression":"topk_i8"})").empty()); // a rule between keys
  for (const std::string text : {"", "null", "[]", "{", "{\"a\":1}x", "\"\xff\""})
    CHECK(outcome(text).empty());
  CHECK(outcome("{" + std::string(5'000, ' ') + "}").empty());
  CHECK(outcome(std::string(4'000, '[')).empty());
  CHECK(outcome("{}") == "taken");
}

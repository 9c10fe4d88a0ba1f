#include "tests/support/test.hpp"

#include "actors/common/error.hpp"
#include "gateway/config/config_patch.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

patch_leaf number(const char* text) {
  return json_number{text};
}

/// "code field reason", or "ok".
std::string outcome(const patch_body& body, bool in_cohort = false) {
  const auto plan = plan_patch(body, default_config(), small_machine(), in_cohort);
  if (plan)
    return "ok";
  const problem what = problem_of(plan.error());
  return std::string(to_string(code_of(plan.error()))) + " " + what.field + " " + what.reason;
}

} // namespace

TEST_CASE("a valid patch says what it changes and whether that waits for a restart") {
  const patch_body body = {{"training.enabled", false},
                           {"training.batch_size", number("16")},
                           {"training.learning_rate", number("1e-3")},
                           {"resources.cpu_threads", number("2.0")},
                           {"resources.max_storage_mb", number("1e3")}};
  const auto plan = plan_patch(body, default_config(), small_machine(), false);
  REQUIRE(plan);
  CHECK(plan->updated == std::vector<std::string>{"training.enabled", "training.batch_size",
                                                  "training.learning_rate", "resources.cpu_threads",
                                                  "resources.max_storage_mb"});
  CHECK_FALSE(plan->restart_required);
  node_config c = default_config();
  plan->apply(c);
  CHECK_FALSE(c.training.enabled);
  CHECK(c.training.batch_size == 16);
  CHECK(c.training.learning_rate == 1e-3);
  CHECK(c.cpu_threads == 2);
  CHECK(c.data.max_storage_mb == 1000);
}

TEST_CASE("memory is given in GB or MB and waits for a restart") {
  for (const auto& [name, text] :
       {std::pair{"resources.max_memory_gb", "0.5"}, std::pair{"resources.max_memory_mb", "512"}}) {
    const auto plan = plan_patch({{name, number(text)}}, default_config(), small_machine(), false);
    REQUIRE(plan);
    CHECK(plan->restart_required);
    node_config c = default_config();
    plan->apply(c);
    CHECK(c.memory_mb == 512);
  }
  CHECK(outcome({{"resources.max_memory_gb", number("0.25")}}) == "ok");
  CHECK(outcome({{"resources.max_memory_gb", number("0.24")}}) ==
        "invalid_request resources.max_memory_gb out_of_range");
  CHECK(outcome({{"resources.max_memory_gb", number("1e300")}}) ==
        "invalid_request resources.max_memory_gb wrong_type");
  CHECK(outcome({{"resources.max_memory_gb", number("1")}, {"resources.max_memory_mb", number("1024")}}) ==
        "invalid_request resources.max_memory_mb duplicate");
}

TEST_CASE("an empty patch changes nothing") {
  const auto plan = plan_patch({}, default_config(), small_machine(), true);
  REQUIRE(plan);
  CHECK(plan->updated.empty());
  CHECK_FALSE(plan->restart_required);
}

TEST_CASE("one bad member refuses the whole patch") {
  CHECK(outcome({{"training.enabled", false}, {"training.batch_size", number("0")}}) ==
        "invalid_request training.batch_size out_of_range");
}

TEST_CASE("unknown, immutable and network keys are told apart") {
  CHECK(outcome({{"training.momentum", number("1")}}) == "invalid_request training.momentum unknown_key");
  CHECK(outcome({{"log_level", std::string("DEBUG")}}) == "invalid_request log_level unknown_key");
  CHECK(outcome({{"training", std::monostate{}}}) == "invalid_request training unknown_key");
  for (const char* name : {"node_id", "port", "grpc_port", "tracker_url"})
    CHECK(outcome({{name, number("1")}}) == std::string("forbidden ") + name + " immutable");
  for (const char* name : {"training.batch_size", "training.learning_rate", "training.diloco_steps"})
    CHECK(outcome({{name, number("1")}}, true) == std::string("forbidden ") + name + " network_parameter");
  CHECK(outcome({{"training.enabled", true}, {"resources.cpu_threads", number("1")}}, true) == "ok");
}

TEST_CASE("types and ranges are exact") {
  for (const patch_leaf& leaf :
       std::vector<patch_leaf>{std::string("8"), true, std::monostate{}, number("8.5"), number("1e400"),
                               number("nan"), number(""), number("0x8")})
    CHECK(outcome({{"training.batch_size", leaf}}) == "invalid_request training.batch_size wrong_type");
  for (const char* text : {"0", "1025", "-1", "-0.0", "9007199254740993"})
    CHECK(outcome({{"training.batch_size", number(text)}}) ==
          "invalid_request training.batch_size out_of_range");
  CHECK(outcome({{"training.enabled", number("1")}}) == "invalid_request training.enabled wrong_type");
  CHECK(outcome({{"training.learning_rate", number("0")}}) ==
        "invalid_request training.learning_rate out_of_range");
  CHECK(outcome({{"training.learning_rate", number("1")}}) == "ok");
  CHECK(outcome({{"resources.cpu_threads", number("5")}}) ==
        "invalid_request resources.cpu_threads out_of_range");
  CHECK(outcome({{"resources.max_storage_mb", number("50001")}}) ==
        "invalid_request resources.max_storage_mb out_of_range");
  const auto plan =
      plan_patch({{"resources.cpu_threads", number("9")}}, default_config(), small_machine(), false);
  REQUIRE_FALSE(plan);
  const problem what = problem_of(plan.error());
  REQUIRE(what.details.size() == 2);
  CHECK(std::get<int64_t>(what.details[0].second) == 1);
  CHECK(std::get<int64_t>(what.details[1].second) == 4);
}

TEST_CASE("a smaller batch takes the number of its parts down with it") {
  node_config c = default_config("nano");
  const auto plan = plan_patch({{"training.batch_size", number("2")}}, c, small_machine(), false);
  REQUIRE(plan);
  plan->apply(c);
  CHECK(c.training.microbatches == 2);
}

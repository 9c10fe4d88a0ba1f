#include "actors/checkpointer/prune_plan.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;

namespace {

constexpr int64_t minute = 60'000'000;
constexpr int64_t hour = 60 * minute;
constexpr int64_t noon = 1'800'000 * hour;

stored_checkpoint made(uint64_t step, int64_t at, bool outer = false, uint64_t bytes = 10) {
  return {std::to_string(step), step, at, bytes, outer};
}

} // namespace

TEST_CASE("the newest five stay") {
  std::vector<stored_checkpoint> stored;
  for (uint64_t step = 8; step > 0; --step)
    stored.push_back(made(step, noon + static_cast<int64_t>(step) * minute));
  CHECK(plan_pruning(stored, {}, noon + 10 * minute) == std::vector<std::string>{"1", "2", "3"});
}

TEST_CASE("one of each of the last three hours stays beside the newest") {
  std::vector<stored_checkpoint> stored;
  for (int i = 0; i < 5; ++i)
    stored.push_back(made(100 - static_cast<uint64_t>(i), noon + (10 - i) * minute));
  stored.push_back(made(50, noon - 5 * minute));
  stored.push_back(made(49, noon - 10 * minute));
  stored.push_back(made(40, noon - hour - minute));
  stored.push_back(made(30, noon - 2 * hour - minute));
  stored.push_back(made(20, noon - 3 * hour - minute));
  CHECK(plan_pruning(stored, {}, noon + 10 * minute) == std::vector<std::string>{"20", "49"});
}

TEST_CASE("over the storage limit the oldest go first, but the newest and the last outer step stay") {
  std::vector<stored_checkpoint> stored{made(5, noon + 5), made(4, noon + 4), made(3, noon + 3, true),
                                        made(2, noon + 2, true), made(1, noon + 1)};
  prune_policy policy;
  policy.storage_bytes = 30;
  CHECK(plan_pruning(stored, policy, noon + minute) == std::vector<std::string>{"1", "2"});
  policy.storage_bytes = 1;
  CHECK(plan_pruning(stored, policy, noon + minute) == std::vector<std::string>{"1", "2", "4"});
}

TEST_CASE("the last outer step stays however old it is") {
  std::vector<stored_checkpoint> stored;
  for (uint64_t step = 9; step > 2; --step)
    stored.push_back(made(step, noon + static_cast<int64_t>(step)));
  stored.push_back(made(1, noon - 100 * hour, true));
  CHECK(plan_pruning(stored, {}, noon + minute) == std::vector<std::string>{"3", "4"});
}

TEST_CASE("that of the outer step before stays too while there is room") {
  std::vector<stored_checkpoint> stored;
  for (uint64_t step = 10; step > 3; --step)
    stored.push_back(made(step, noon + static_cast<int64_t>(step)));
  for (uint64_t step = 3; step > 0; --step)
    stored.push_back(made(step, noon + static_cast<int64_t>(step), true));
  CHECK(plan_pruning(stored, {}, noon + minute) == std::vector<std::string>{"1", "4", "5"});
  prune_policy policy;
  policy.storage_bytes = 60;
  CHECK(plan_pruning(stored, policy, noon + minute) == std::vector<std::string>{"1", "2", "4", "5"});
}

TEST_CASE("nothing stored, nothing removed") {
  CHECK(plan_pruning({}, {}, noon).empty());
}

#include "actors/layer_worker/work_queue.hpp"
#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;

namespace {

const auto any = [](int) { return true; };

} // namespace

TEST_CASE("the most urgent class comes first, and first come first served inside it") {
  work_queue<int> queue;
  queue.push(work_class::bulk, 0, 1);
  queue.push(work_class::forward, 0, 2);
  queue.push(work_class::forward, 0, 3);
  queue.push(work_class::backward, 0, 4);
  queue.push(work_class::prefill, 0, 5);
  queue.push(work_class::decode, 0, 6);
  std::string order;
  while (const auto next = queue.most_urgent(any))
    order += std::to_string(*queue.pop(*next, any));
  CHECK(order == "654231");
  CHECK(queue.size() == 0);
  CHECK_FALSE(queue.pop(work_class::bulk, any));
}

TEST_CASE("jobs that may not run are passed over and keep their place") {
  work_queue<int> queue;
  queue.push(work_class::backward, 0, 1);
  queue.push(work_class::backward, 0, 2);
  queue.push(work_class::bulk, 0, 3);
  const auto odd_blocked = [](int job) { return job % 2 == 0; };
  CHECK(*queue.most_urgent(odd_blocked) == work_class::backward);
  CHECK(*queue.pop(work_class::backward, odd_blocked) == 2);
  CHECK_FALSE(queue.most_urgent(odd_blocked));
  CHECK(*queue.pop(work_class::backward, any) == 1);
  CHECK(queue.size(work_class::bulk) == 1);
}

TEST_CASE("training is refused at ninety percent, everything at ninety-nine") {
  work_queue<int> queue(100);
  for (int i = 0; i < 90; ++i) {
    CHECK(queue.admits(work_class::forward));
    queue.push(work_class::decode, 0, i);
  }
  CHECK_FALSE(queue.admits(work_class::forward));
  CHECK_FALSE(queue.admits(work_class::backward));
  CHECK(queue.admits(work_class::bulk));
  for (int i = 90; i < 99; ++i) {
    CHECK(queue.admits(work_class::decode));
    queue.push(work_class::decode, 0, i);
  }
  CHECK_FALSE(queue.admits(work_class::decode));
  CHECK_FALSE(queue.admits(work_class::bulk));
  (void)queue.pop(work_class::decode, any);
  CHECK(queue.admits(work_class::decode));
}

TEST_CASE("work whose deadline has passed is taken out") {
  work_queue<int> queue;
  queue.push(work_class::decode, 10, 1);
  queue.push(work_class::bulk, 20, 2);
  queue.push(work_class::bulk, 0, 3);
  CHECK(queue.expire(9).empty());
  CHECK(queue.expire(10) == std::vector<int>{1});
  CHECK(queue.expire(1000) == std::vector<int>{2});
  CHECK(queue.size() == 1);
  CHECK(queue.remove(any) == std::vector<int>{3});
}

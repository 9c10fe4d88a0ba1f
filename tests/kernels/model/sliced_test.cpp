#include "kernels/core/status.hpp"
#include "kernels/model/sliced.hpp"
#include "tests/support/test.hpp"

#include <memory>
#include <vector>

using namespace neuroshard::model;
using neuroshard::kernels::code;
using neuroshard::kernels::result;
using neuroshard::kernels::status;

namespace {

sliced<int> count_to(int n, std::vector<int>& seen) {
  for (int i = 1; i <= n; ++i) {
    seen.push_back(i);
    co_await end_slice{};
  }
  co_return n;
}

sliced<result<int>> nested(std::vector<int>& seen, std::shared_ptr<int> held, bool fail) {
  const int a = co_await count_to(2, seen);
  if (fail)
    NEUROSHARD_CO_TRY(status(code::io, "no"));
  const int b = co_await count_to(3, seen);
  co_return a + b + *held;
}

sliced<result<int>> twice(std::vector<int>& seen, std::shared_ptr<int> held) {
  auto first = co_await nested(seen, held, false);
  if (!first.ok())
    co_return first.status();
  auto second = co_await nested(seen, std::move(held), false);
  co_return *first + *second;
}

sliced<int> without_slices(int depth) {
  if (depth == 0)
    co_return 0;
  co_return 1 + co_await without_slices(depth - 1);
}

} // namespace

TEST_CASE("sliced work does nothing before the first slice and gives the thread back after each") {
  std::vector<int> seen;
  auto work = count_to(2, seen);
  CHECK(seen.empty());
  CHECK_FALSE(work.done());
  CHECK_FALSE(work.resume());
  CHECK(seen.size() == 1);
  CHECK_FALSE(work.resume());
  CHECK(work.resume());
  CHECK(work.resume()); // harmless
  CHECK(work.take() == 2);
}

TEST_CASE("nested sliced work yields to the outermost caller and hands values and errors up") {
  std::vector<int> seen;
  auto held = std::make_shared<int>(10);
  auto work = twice(seen, held);
  int slices = 1;
  while (!work.resume())
    ++slices;
  CHECK(slices == 11);
  CHECK(*work.take() == 30);
  work.reset();
  CHECK(held.use_count() == 1);

  seen.clear();
  auto failing = nested(seen, held, true);
  const auto outcome = failing.run();
  CHECK(outcome.status().why() == code::io);
  CHECK(seen.size() == 2);
  CHECK(without_slices(20).run() == 20);
}

TEST_CASE("sliced work that is destroyed half way releases what it holds") {
  std::vector<int> seen;
  auto held = std::make_shared<int>(1);
  for (int slices = 0; slices <= 11; ++slices) {
    auto work = twice(seen, held);
    for (int i = 0; i < slices; ++i)
      (void)work.resume();
    CHECK((held.use_count() > 1) != work.done()); // its end releases too
    auto moved = std::move(work);
    moved.reset();
    CHECK(held.use_count() == 1);
  }
}

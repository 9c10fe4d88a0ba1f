#include "tests/kernels/op_cases.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard::kernels;
using namespace neuroshard::kernels::testing;

TEST_CASE("the reference backend computes what the formulas say in double precision") {
  auto on = device::open(*reference_backend(), {});
  REQUIRE(on.ok());
  CAPTURE(test_seed());
  int compared = 0;
  for (const op_case& one : all_cases(test_seed())) {
    if (!one.oracle)
      continue;
    const outcome got = run(*on, one);
    CHECK_MESSAGE(got.done.ok(), one.name << ": " << got.done.message());
    if (!got.done.ok())
      continue;
    CHECK_MESSAGE(got.gaps_intact, one.name << " wrote between the rows");
    const values truth = expected(one);
    for (size_t i = 0; i < one.operands.size(); ++i) {
      const operand& o = one.operands[i];
      if (o.is == role::input)
        continue;
      const double apart = distance(got.read[i], truth[i]);
      CHECK_MESSAGE(apart <= o.tolerance, one.name << ": " << o.name << " is " << apart << " apart");
      ++compared;
    }
  }
  CHECK(compared > 300);
}

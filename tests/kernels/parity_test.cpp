#include "tests/kernels/op_cases.hpp"
#include "tests/support/test.hpp"

#ifdef NEUROSHARD_HAS_CPU_BACKEND
#include "kernels/cpu/cpu_backend.hpp"
#endif

#include <cstdlib>
#include <iostream>

using namespace neuroshard::kernels;
using namespace neuroshard::kernels::testing;

namespace {

const backend* fast_cpu() {
#ifdef NEUROSHARD_HAS_CPU_BACKEND
  register_cpu_backend();
#endif
  auto found = find_backend("cpu");
  return found.ok() ? *found : nullptr;
}

device_ptr open(const backend& table, int threads, const std::string& isa = {}) {
  device_options options;
  options.threads = threads;
  options.isa = isa;
  auto opened = device::open(table, options);
  return opened.ok() ? *opened : nullptr;
}

/// Every case on a device against the reference: same answer within the tolerance, nothing written outside.
void compare_with_reference(const device_ptr& on) {
  const device_ptr reference = open(*reference_backend(), 1);
  REQUIRE(reference != nullptr);
  CAPTURE(test_seed());
  for (const op_case& one : all_cases(test_seed())) {
    const outcome truth = run(reference, one);
    const outcome got = run(on, one);
    CHECK_MESSAGE(truth.done.ok(), one.name << ": " << truth.done.message());
    CHECK_MESSAGE(got.done.ok(), one.name << ": " << got.done.message());
    if (!truth.done.ok() || !got.done.ok())
      continue;
    CHECK_MESSAGE(got.gaps_intact, one.name << " wrote between the rows");
    for (size_t i = 0; i < one.operands.size(); ++i) {
      const operand& o = one.operands[i];
      const bool by_alias = [&] {
        for (const operand& other : one.operands)
          if (other.alias_of == static_cast<int>(i))
            return true;
        return false;
      }();
      if (o.is == role::input && !by_alias) {
        CHECK_MESSAGE(got.raw[i] == truth.raw[i], one.name << " changed its input " << o.name);
        continue;
      }
      // Both may err by the tolerance, to either side.
      const double apart = distance(got.read[i], truth.read[i]);
      CHECK_MESSAGE((by_alias || apart <= 2 * o.tolerance),
                    one.name << ": " << o.name << " is " << apart << " apart");
    }
  }
}

} // namespace

TEST_CASE("the fast CPU backend agrees with the reference on every operation") {
  const backend* cpu = fast_cpu();
  if (cpu == nullptr) {
    MESSAGE("skipped: this build has no fast CPU backend");
    return;
  }
  const device_ptr on = open(*cpu, 2);
  REQUIRE(on != nullptr);
  compare_with_reference(on);
}

TEST_CASE("the fast CPU backend agrees with the reference on older processors too") {
  const backend* cpu = fast_cpu();
  for (const char* isa : {"avx512", "avx2", "sse4"}) {
    const device_ptr on = cpu == nullptr ? nullptr : open(*cpu, 2, isa);
    if (on == nullptr) {
      MESSAGE("skipped: no fast CPU backend with " << isa);
      continue;
    }
    CAPTURE(isa);
    compare_with_reference(on);
  }
}

TEST_CASE("a CUDA backend, where there is one, agrees with the reference") {
  auto found = find_backend("cuda");
  const device_ptr on = found.ok() ? open(**found, 0) : nullptr;
  if (on == nullptr) {
    MESSAGE("skipped: " << (found.ok() ? std::string("no CUDA device") : found.status().message()));
    return;
  }
  compare_with_reference(on);
}

TEST_CASE("one thread and two give the same bits, run after run, with every instruction set") {
  const backend* cpu = fast_cpu();
  if (cpu == nullptr) {
    MESSAGE("skipped: this build has no fast CPU backend");
    return;
  }
  const auto cases = all_cases(test_seed());
  for (const char* isa : {"", "avx512", "avx2", "sse4"}) {
    CAPTURE(isa);
    const device_ptr one_thread = open(*cpu, 1, isa);
    const device_ptr two_threads = open(*cpu, 2, isa);
    REQUIRE(one_thread != nullptr);
    REQUIRE(two_threads != nullptr);
    for (const op_case& one : cases) {
      const outcome alone = run(one_thread, one);
      CHECK_MESSAGE(run(one_thread, one).raw == alone.raw, one.name << " differs from run to run");
      CHECK_MESSAGE(run(two_threads, one).raw == alone.raw, one.name << " depends on the number of threads");
    }
  }
}

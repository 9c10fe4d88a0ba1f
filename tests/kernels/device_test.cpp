#include "kernels/core/backend.hpp"
#include "tests/support/test.hpp"

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

using namespace neuroshard::kernels;

namespace {

device_ptr reference_device(uint64_t memory_bytes = 0) {
  device_options options;
  options.memory_bytes = memory_bytes;
  auto opened = device::open(*reference_backend(), options);
  REQUIRE(opened.ok());
  return *opened;
}

} // namespace

TEST_CASE("a device counts what is allocated, and the most there ever was") {
  const device_ptr on = reference_device();
  CHECK_EQ(on->allocated(), 0U);
  {
    auto first = on->alloc(1000);
    REQUIRE(first.ok());
    CHECK_EQ((*first)->bytes, 1000U);
    CHECK_EQ(reinterpret_cast<uintptr_t>((*first)->address) % 64, 0U);
    CHECK_EQ(on->allocated(), 1024U); // whole cache lines
    auto second = on->alloc(64);
    REQUIRE(second.ok());
    CHECK_EQ(on->allocated(), 1088U);
  }
  CHECK_EQ(on->allocated(), 0U);
  CHECK_EQ(on->allocated_peak(), 1088U);
}

TEST_CASE("an allocation past the limit is refused and changes nothing") {
  const device_ptr on = reference_device(4096);
  auto most = on->alloc(4096);
  REQUIRE(most.ok());
  auto more = on->alloc(1);
  CHECK_FALSE(more.ok());
  CHECK(more.status().why() == code::out_of_memory);
  CHECK(more.status().message().find("4096") != std::string::npos);
  CHECK_EQ(on->allocated(), 4096U);
  most = on->alloc(0); // the old buffer goes only after this is refused
  CHECK_FALSE(most.ok());
  CHECK(on->alloc(4096).ok());
}

TEST_CASE("impossible sizes are refused") {
  const device_ptr on = reference_device();
  for (const uint64_t bytes : {~uint64_t{0}, ~uint64_t{0} - 100, uint64_t{1} << 62}) {
    auto made = on->alloc(bytes);
    REQUIRE_FALSE(made.ok());
    CHECK(made.status().why() == code::out_of_memory);
  }
  CHECK_EQ(on->allocated(), 0U);
}

TEST_CASE("a buffer of no bytes still has an address of its own") {
  const device_ptr on = reference_device();
  auto a = on->alloc(0);
  auto b = on->alloc(0);
  REQUIRE(a.ok());
  REQUIRE(b.ok());
  CHECK((*a)->address != nullptr);
  CHECK((*a)->address != (*b)->address);
}

TEST_CASE("buffers, queues and events keep their device open") {
  device_ptr on = reference_device();
  const std::weak_ptr<device> watched = on;
  auto memory = on->alloc(64);
  auto work = queue::open(on);
  auto point = event::make(on);
  REQUIRE(memory.ok());
  REQUIRE(work.ok());
  REQUIRE(point.ok());
  on.reset();
  CHECK_FALSE(watched.expired());
  work = status(code::internal, "dropped");
  point = status(code::internal, "dropped");
  CHECK_FALSE(watched.expired());
  memory = status(code::internal, "dropped");
  CHECK(watched.expired());
}

TEST_CASE("allocating from many threads loses no count") {
  const device_ptr on = reference_device(64 * 1024);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 2000; ++round) {
        auto some = on->alloc(64 * static_cast<uint64_t>(1 + round % 7));
        if (some.ok() && on->allocated() < (*some)->bytes)
          std::abort();
      }
    });
  for (auto& t : threads)
    t.join();
  CHECK_EQ(on->allocated(), 0U);
  CHECK(on->allocated_peak() >= 7 * 64);
  CHECK(on->allocated_peak() <= 4 * 7 * 64);
}

TEST_CASE("a queue copies and fills, and an event tells when") {
  const device_ptr on = reference_device();
  auto opened = queue::open(on);
  auto point = event::make(on);
  auto memory = on->alloc(8);
  REQUIRE(opened.ok());
  REQUIRE(point.ok());
  REQUIRE(memory.ok());
  queue& q = **opened;
  CHECK(q.fill((*memory)->address, 0xab, 8).ok());
  const std::array<uint8_t, 4> sent{1, 2, 3, 4};
  CHECK(q.copy((*memory)->address, sent.data(), sent.size()).ok());
  CHECK(q.record(**point).ok());
  CHECK(q.wait(**point).ok());
  std::array<uint8_t, 8> read{};
  CHECK(q.copy(read.data(), (*memory)->address, read.size()).ok());
  CHECK(q.wait().ok());
  CHECK((*point)->done());
  CHECK(read == std::array<uint8_t, 8>{1, 2, 3, 4, 0xab, 0xab, 0xab, 0xab});
  CHECK(q.copy(nullptr, sent.data(), 4).why() == code::invalid_argument);
  CHECK(q.copy(nullptr, nullptr, 0).ok());
}

TEST_CASE("a device that does not exist is refused in one line") {
  device_options options;
  options.index = 1;
  auto opened = device::open(*reference_backend(), options);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.status().why() == code::invalid_argument);
  options.index = 0;
  options.threads = -1;
  CHECK_FALSE(device::open(*reference_backend(), options).ok());
  backend none = *reference_backend();
  none.device_count = [] { return 0; };
  CHECK(device::open(none, {}).status().why() == code::unavailable);
  none.abi = backend_abi + 1;
  CHECK(device::open(none, {}).status().why() == code::unavailable);
  CHECK_FALSE(queue::open(nullptr).ok());
  CHECK_FALSE(event::make(nullptr).ok());
}

TEST_CASE("backends are found by name, and the reason is one line where there is none") {
  auto reference = find_backend("reference");
  REQUIRE(reference.ok());
  CHECK(*reference == reference_backend());
  auto unknown = find_backend("abacus");
  CHECK(unknown.status().why() == code::invalid_argument);
  CHECK(unknown.status().message().find("abacus") != std::string::npos);
  static backend own = *reference_backend();
  own.name = "own";
  register_backend(&own);
  register_backend(&own);
  auto found = find_backend("own");
  REQUIRE(found.ok());
  CHECK(*found == &own);
  auto cuda = find_backend("cuda");
  if (!cuda.ok()) {
    CHECK(cuda.status().why() == code::unavailable);
    CHECK(cuda.status().message().find('\n') == std::string::npos);
  }
}

TEST_CASE("every entry of the reference table is filled in") {
  const auto* entries = reinterpret_cast<void* const*>(&reference_backend()->device_count);
  const auto* end = reinterpret_cast<void* const*>(reference_backend() + 1);
  for (; entries < end; ++entries)
    CHECK(*entries != nullptr);
}

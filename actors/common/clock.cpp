#include "actors/common/clock.hpp"

#include <sys/random.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <vector>

namespace neuroshard {

namespace {

class machine_time final : public time_source {
public:
  int64_t unix_us() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  int64_t steady_us() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

class machine_random final : public random_source {
public:
  void fill(void* out, size_t bytes) override {
    auto* to = static_cast<uint8_t*>(out);
    while (bytes > 0) {
      const ssize_t got = ::getrandom(to, bytes, 0);
      if (got < 0) {
        if (errno == EINTR)
          continue;
        std::abort(); // A node without randomness must not make keys or ids.
      }
      to += got;
      bytes -= static_cast<size_t>(got);
    }
  }
};

} // namespace

time_source_ptr system_time() {
  static const auto instance = std::make_shared<const machine_time>();
  return instance;
}

random_source_ptr system_random() {
  static const auto instance = std::make_shared<machine_random>();
  return instance;
}

std::string random_hex(random_source& from, size_t bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::vector<uint8_t> raw(bytes);
  from.fill(raw.data(), raw.size());
  std::string text;
  text.reserve(2 * bytes);
  for (const uint8_t byte : raw) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

} // namespace neuroshard

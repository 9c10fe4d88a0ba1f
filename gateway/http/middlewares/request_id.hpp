#pragma once

#include "actors/common/clock.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace neuroshard::http {

/// Makes X-Request-Id values that no other run, and no other lane of this one, makes: 64 random bits and a
/// count. One per lane; not secret, so no system call per request.
class request_ids {
public:
  explicit request_ids(random_source& random);
  /// The client's id when it is 1-64 of [A-Za-z0-9_-], otherwise a new one of 32 hex digits.
  std::string next(std::string_view sent);

private:
  std::array<char, 16> prefix_;
  uint64_t count_;
};

} // namespace neuroshard::http

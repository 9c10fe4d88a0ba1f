#pragma once

#include "kernels/core/status.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace neuroshard::text {

/// How a mirror of shards is reached. This folder knows no HTTP: the gateway implements the port
/// (gateway/mirror), tests bring their own.
class fetcher {
public:
  /// Takes what arrives, in order. An error of either ends the transfer and is what `get` returns.
  struct sink {
    std::function<kernels::status(uint64_t from)> begin; ///< once, before the first byte: where it starts
    std::function<kernels::status(std::span<const uint8_t>)> take;
  };

  virtual ~fetcher() = default;

  /// Reads `url` from byte `from` to its end, or from its beginning where the server cannot do that. Blocks;
  /// ends soon after `cancelled()` is true, which is asked at least once a second. `unavailable`: no
  /// connection, another answer than 200 or 206, a break, too slow, cancelled: worth another try.
  /// `invalid_argument`: no URL that can be fetched. The message is one line without credentials.
  virtual kernels::status get(const std::string& url, uint64_t from, const sink& to,
                              const std::function<bool()>& cancelled) = 0;
};

} // namespace neuroshard::text

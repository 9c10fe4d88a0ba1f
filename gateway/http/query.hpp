#pragma once

#include "actors/common/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neuroshard::http {

/// The query of a request, decoded; keeps the first complaint. Parameters that nobody asks for are ignored;
/// empty ones count as absent.
class query_reader {
public:
  explicit query_reader(std::string_view query);

  std::optional<std::string> text(std::string_view name) const;
  int64_t integer(std::string_view name, int64_t otherwise, int64_t min, int64_t max);
  bool boolean(std::string_view name, bool otherwise);
  /// A UTC day of a date `YYYY-MM-DD`.
  std::optional<int32_t> date(std::string_view name);

  bool failed() const noexcept { return static_cast<bool>(complaint_); }
  const caf::error& complaint() const noexcept { return complaint_; }
  void complain(std::string_view name, std::string reason, std::string message,
                std::vector<std::pair<std::string, detail_value>> details = {});

private:
  std::vector<std::pair<std::string, std::string>> parts_;
  caf::error complaint_;
};

} // namespace neuroshard::http

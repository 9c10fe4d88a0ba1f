#include "actors/common/log.hpp"

#include <spdlog/spdlog.h>

namespace neuroshard::log {

namespace {

spdlog::level::level_enum spdlog_level(level at) noexcept {
  switch (at) {
  case level::trace:
    return spdlog::level::trace;
  case level::debug:
    return spdlog::level::debug;
  case level::info:
    return spdlog::level::info;
  case level::warn:
    return spdlog::level::warn;
  case level::error:
    return spdlog::level::err;
  }
  return spdlog::level::err;
}

} // namespace

bool enabled(level at) noexcept {
  return spdlog::default_logger_raw()->should_log(spdlog_level(at));
}

void write(level at, std::string_view who, std::string_view text) {
  spdlog::default_logger_raw()->log(spdlog_level(at), "{}: {}", who, text);
}

} // namespace neuroshard::log

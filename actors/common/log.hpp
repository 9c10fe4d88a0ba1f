#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

/// The log. One line = actor or part, event in kebab-case, key=value pairs:
/// `log::info("checkpointer", "saved step={} bytes={} ms={}", step, bytes, ms)`. Error: someone must act;
/// warn: degraded but handled; info: life cycle; debug: per request. Never a secret, never a tensor, no text
/// of a prompt. Thread safe. Where lines go (file, terminal) and the level are set up by the gateway
/// (gateway/config/logging).
namespace neuroshard::log {

enum class level : unsigned char { trace, debug, info, warn, error };

bool enabled(level at) noexcept;
void write(level at, std::string_view who, std::string_view text);

template <class... Ts>
void debug(std::string_view who, fmt::format_string<Ts...> format, Ts&&... args) {
  if (enabled(level::debug))
    write(level::debug, who, fmt::format(format, std::forward<Ts>(args)...));
}
template <class... Ts>
void info(std::string_view who, fmt::format_string<Ts...> format, Ts&&... args) {
  if (enabled(level::info))
    write(level::info, who, fmt::format(format, std::forward<Ts>(args)...));
}
template <class... Ts>
void warn(std::string_view who, fmt::format_string<Ts...> format, Ts&&... args) {
  if (enabled(level::warn))
    write(level::warn, who, fmt::format(format, std::forward<Ts>(args)...));
}
template <class... Ts>
void error(std::string_view who, fmt::format_string<Ts...> format, Ts&&... args) {
  if (enabled(level::error))
    write(level::error, who, fmt::format(format, std::forward<Ts>(args)...));
}

} // namespace neuroshard::log

#pragma once

#include <string>
#include <utility>
#include <variant>

namespace neuroshard {

/// Exit codes of the program (network.md section 7).
enum class exit_code : int {
  ok = 0,
  bad_configuration = 1, ///< arguments, environment, file, or token
  bind_failure = 2,      ///< a port is in use
  data_directory = 3,    ///< locked, unreadable, or the ledger is corrupt or newer
  device = 4,            ///< the requested device is unavailable
  fatal = 5,             ///< at run time
  not_running = 6,       ///< --status and --stop without a daemon
};

/// Why the program cannot go on: its exit code, and one line for stderr without a line break, which never
/// holds a secret.
struct start_error {
  exit_code code = exit_code::bad_configuration;
  std::string line;
};

/// A value, or why there is none.
template <class T>
class [[nodiscard]] start_result {
public:
  start_result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
  start_result(start_error why) : held_(std::in_place_index<1>, std::move(why)) {}

  explicit operator bool() const noexcept { return held_.index() == 0; }
  /// Precondition: holds a value.
  T& operator*() & { return std::get<0>(held_); }
  const T& operator*() const& { return std::get<0>(held_); }
  T&& operator*() && { return std::get<0>(std::move(held_)); }
  T* operator->() { return &std::get<0>(held_); }
  const T* operator->() const { return &std::get<0>(held_); }
  /// Precondition: holds an error.
  const start_error& error() const { return std::get<1>(held_); }

private:
  std::variant<T, start_error> held_;
};

/// The value of operations that only succeed or fail.
struct done {};

} // namespace neuroshard

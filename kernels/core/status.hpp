#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace neuroshard::kernels {

/// Why a kernel, model or text operation failed. Mapped once to the actors' error enum
/// (actors/common/error.hpp).
enum class code : uint8_t {
  ok = 0,
  invalid_argument, ///< wrong shape, dtype, range or name
  out_of_memory,    ///< the device or the host has no room
  unsupported,      ///< the backend cannot do this; another one may
  unavailable,      ///< no such device, or its driver or library is missing
  not_finite,       ///< a NaN or an infinity where a finite value is needed
  corrupt,          ///< stored bytes do not match their checksum or their format
  io,               ///< the operating system refused a file operation
  internal,         ///< a bug, or an error of the device
};

/// The name of a code, as it is written in logs.
const char* to_string(code c) noexcept;

/// The outcome of an operation: `code::ok`, or a code and one line that says what was wrong. Never thrown.
class [[nodiscard]] status {
public:
  status() noexcept = default;
  status(code c, std::string message) : code_(c), message_(std::move(message)) {}

  bool ok() const noexcept { return code_ == code::ok; }
  explicit operator bool() const noexcept { return ok(); }
  kernels::code why() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }

private:
  kernels::code code_ = code::ok;
  std::string message_;
};

/// A value, or the status that says why there is none. `status()` of a value is ok.
template <class T>
class [[nodiscard]] result {
public:
  result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
  result(kernels::status why) : held_(std::in_place_index<1>, std::move(why)) {}

  bool ok() const noexcept { return held_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }
  /// Precondition: ok().
  T& operator*() & { return std::get<0>(held_); }
  const T& operator*() const& { return std::get<0>(held_); }
  T&& operator*() && { return std::get<0>(std::move(held_)); }
  T* operator->() { return &std::get<0>(held_); }
  const T* operator->() const { return &std::get<0>(held_); }
  kernels::status status() const { return ok() ? kernels::status{} : std::get<1>(held_); }

private:
  std::variant<T, kernels::status> held_;
};

/// Returns early from a function that returns status or result<T> when `expr` failed.
#define NEUROSHARD_TRY(expr)                                                                                 \
  do {                                                                                                       \
    if (::neuroshard::kernels::status neuroshard_try_status = (expr); !neuroshard_try_status.ok())           \
      return neuroshard_try_status;                                                                          \
  } while (false)

} // namespace neuroshard::kernels

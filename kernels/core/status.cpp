#include "kernels/core/status.hpp"

namespace neuroshard::kernels {

const char* to_string(code c) noexcept {
  switch (c) {
  case code::ok:
    return "ok";
  case code::invalid_argument:
    return "invalid_argument";
  case code::out_of_memory:
    return "out_of_memory";
  case code::unsupported:
    return "unsupported";
  case code::unavailable:
    return "unavailable";
  case code::not_finite:
    return "not_finite";
  case code::corrupt:
    return "corrupt";
  case code::io:
    return "io";
  case code::internal:
    return "internal";
  }
  return "unknown";
}

} // namespace neuroshard::kernels

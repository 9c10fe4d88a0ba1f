#pragma once

#include "actors/common/error.hpp"
#include "kernels/core/status.hpp"

namespace neuroshard {

/// The one place where the codes of `kernels` become codes of the actors.
inline errc to_errc(kernels::code c) noexcept {
  switch (c) {
  case kernels::code::ok:
    return errc::ok;
  case kernels::code::invalid_argument:
  case kernels::code::not_finite:
    return errc::invalid_request;
  case kernels::code::out_of_memory:
    return errc::overloaded;
  case kernels::code::unsupported:
  case kernels::code::unavailable:
    return errc::unavailable;
  case kernels::code::corrupt:
    return errc::data_loss;
  case kernels::code::io:
    return errc::storage;
  case kernels::code::internal:
    break;
  }
  return errc::internal;
}

/// The error of a kernel, model or text operation. Its reason is the name of the kernel code where that says
/// more than the errc does: "out_of_memory" (another size may fit), "not_finite" (the values were refused,
/// not the request).
inline caf::error refuse(const kernels::status& why) {
  problem what;
  what.message = why.message();
  if (why.why() == kernels::code::out_of_memory)
    what.reason = "out_of_memory";
  else if (why.why() == kernels::code::not_finite)
    what.reason = "not_finite";
  return refuse(to_errc(why.why()), std::move(what));
}

} // namespace neuroshard

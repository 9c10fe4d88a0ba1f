#pragma once

#include "actors/common/money.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/error.hpp>
#include <caf/expected.hpp>
#include <caf/make_message.hpp>
#include <caf/message.hpp>
#include <caf/type_id.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace neuroshard {

/// Why something was refused or failed. One enum for all actors; mapped once to HTTP (gateway/http) and once
/// to gRPC (gateway/grpc).
enum class errc : uint8_t {
  ok = 0,
  invalid_request,      ///< a value is malformed or out of range; `problem` names the field
  unauthorized,         ///< no valid token or announced identity
  forbidden,            ///< known caller, but this is not allowed to it
  not_found,            ///< no such path, session, layer, record
  rate_limited,         ///< over the budget; `retry_after` in the details
  insufficient_balance, ///< details: required, available, balance
  overloaded,           ///< a bounded queue is full
  not_ready,            ///< still starting or loading
  draining,             ///< shutting down, takes nothing new
  no_route,             ///< nobody holds a layer that is needed
  timeout,              ///< the time limit passed
  cancelled,            ///< the caller went away or asked to stop
  already_exists,       ///< same id, other content
  failed_precondition,  ///< version, binding, cache position or step does not match; reason says which
  aborted,              ///< evicted or retired while in use
  unavailable,          ///< cannot be reached or served now
  data_loss,            ///< stored bytes fail their checksum
  storage,              ///< disk full, read-only, or the database refuses
  internal,             ///< a bug, or a device error
};

const char* to_string(errc e) noexcept;

/// A typed value in the details of an error.
using detail_value = std::variant<bool, int64_t, double, std::string, neuro_amount>;

/// What an error tells its receiver beside its code. Never holds a token, a key or a stack trace.
struct problem {
  std::string message; ///< one sentence for people
  std::string field;   ///< dotted path of the offending field, or empty
  std::string reason;  ///< snake_case word for programs, or empty
  std::vector<std::pair<std::string, detail_value>> details;
};

/// A caf::error that carries a problem. Actors answer with this; plain logic returns caf::expected<T>.
caf::error refuse(errc code, problem what);
caf::error refuse(errc code, std::string message);

/// The code of an error; errors of CAF itself (timeouts, dead receivers) become timeout, unavailable or
/// internal.
errc code_of(const caf::error& e);
/// The problem of an error; for errors without one, a message made from the code.
problem problem_of(const caf::error& e);

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_common, caf::first_custom_type_id)
CAF_ADD_TYPE_ID(neuroshard_common, (neuroshard::problem))
CAF_END_TYPE_ID_BLOCK(neuroshard_common)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::problem)
CAF_ERROR_CODE_ENUM(neuroshard::errc, "neuroshard")

#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/common/money.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// The INFERENCE SCHEDULER: the bounded queue of requests and the running batch. Tokenizes, reserves and
/// settles the fee, prefills, decodes all running generations together (continuous batching), applies stop
/// rules, streams tokens out.
namespace neuroshard {

/// What came of a generation.
struct generation_result {
  std::string id;            ///< "inf_" + 24 hex
  std::string text;          ///< completion only, valid UTF-8, stop string removed
  std::string finish_reason; ///< stop, length, error
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  neuro_amount cost;
  double queue_ms = 0;
  double inference_ms = 0;
  std::string model_hash; ///< 64 hex, of the pinned serving copy
  uint64_t seed = 0;
  std::optional<double> logprob;     ///< sum over the completion, when asked
  std::optional<caf::error> failure; ///< with finish_reason "error"
};

/// Where a generation's output goes. Called from the scheduler's thread, in order, `done` exactly once and
/// last; must not block. The implementation (the HTTP gateway, the console, a test) posts to its own thread.
class generation_sink {
public:
  virtual ~generation_sink() = default;
  /// Text that became complete with one token (or more, joined), its index from 0, and the sum of their
  /// log-probabilities.
  virtual void token(std::string text, uint32_t index, std::optional<double> logprob) = 0;
  virtual void done(generation_result result) = 0;
};

/// A request, already validated for form and ranges by the gateway; the scheduler checks what needs the
/// tokenizer and the model (prompt tokens + max_tokens <= context: errc::invalid_request, field "prompt",
/// details limit, prompt_tokens).
struct generation_request {
  std::string prompt;
  uint32_t max_tokens = 100;
  float temperature = 1;
  float top_p = 1;
  uint32_t top_k = 50;
  std::vector<std::string> stop;
  std::optional<uint64_t> seed;
  bool logprobs = false;
  bool own =
      false; ///< of the node itself (a sample for its terminal): not counted, not charged, first to give way
  std::shared_ptr<generation_sink> sink;
};
/// Admitted: it is queued or running. Everything later goes to the sink.
struct generation_admitted {
  std::string id;
  uint32_t prompt_tokens = 0;
};
/// Ends a generation within one token; what it used so far is charged. Unknown ids are ignored.
struct cancel_generation {
  std::string id;
  bool unheard = false; ///< its caller was told that it failed before it knew the id: nothing is charged
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_inference_scheduler, caf::first_custom_type_id + 500)
CAF_ADD_TYPE_ID(neuroshard_inference_scheduler, (neuroshard::generation_request))
CAF_ADD_TYPE_ID(neuroshard_inference_scheduler, (neuroshard::generation_admitted))
CAF_ADD_TYPE_ID(neuroshard_inference_scheduler, (neuroshard::cancel_generation))
CAF_ADD_ATOM(neuroshard_inference_scheduler, neuroshard, pump_atom, "pump")
CAF_END_TYPE_ID_BLOCK(neuroshard_inference_scheduler)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::generation_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::generation_admitted)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::cancel_generation)

namespace neuroshard {

using inference_scheduler_actor = caf::typed_actor<
    // Admits a generation or says why not (overloaded, insufficient_balance, not_ready, draining,
    // invalid_request).
    caf::replies_to<generation_request>::with<generation_admitted>, caf::reacts_to<cancel_generation>,
    // Internal: time limits; the next calls to the layer worker.
    caf::reacts_to<tick_atom>, caf::reacts_to<pump_atom>,
    // Takes nothing new; answers once everything running is finished, or cancelled and settled after 10 s.
    caf::replies_to<drain_atom>::with<void>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard

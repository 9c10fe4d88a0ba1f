#pragma once

#include "actors/inference_scheduler/completion.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/inference_scheduler/route_work.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "kernels/core/backend.hpp"

#include <caf/error.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// One request from its admission to its last word.
struct generation {
  /// `routing`: a hop of its route failed, and another way is looked for.
  enum class stage : uint8_t { admitting, waiting, prefilling, running, routing, ending };

  std::string id;
  std::string session_id; ///< new after a rebuild
  generation_request request;
  std::vector<int32_t> prompt; ///< BOS first
  uint64_t seed = 0;
  completion output;

  stage at = stage::admitting;
  bool in_flight = false; ///< a call that holds one of its rows has not been answered
  bool session_open = false;
  bool began = false;      ///< its prefill has begun: from then on a cancellation pays
  bool reserved = false;   ///< money is locked for it
  bool unheard = false;    ///< cancelled before its caller knew of it: costs nothing
  bool needs_room = false; ///< waits until another generation has given its cache back
  uint32_t cached = 0;     ///< positions in the session's cache
  uint32_t rebuilds = 0;
  uint64_t model_version = 0;
  uint64_t copy_id = 0; ///< serving copy it is pinned to; 0: not yet known
  model_route route;
  std::string batch_key;               ///< of the generations it is computed with
  std::optional<caf::error> stop_with; ///< ends with it as soon as no call holds it

  std::vector<std::string> exclude;          ///< nodes that failed it lately
  std::map<uint32_t, uint32_t> hop_failures; ///< since its last token, by the first layer of the hop
  std::optional<caf::error> no_route;        ///< why it waits for a route
  bool route_asked = false;                  ///< an answer about its next route is on the way
  bool version_gone = false;                 ///< a replica serves newer weights than the ones it began with
  uint32_t patience = 1;                     ///< times the usual budget, once hops were late
  uint32_t refused_calls = 0;                ///< in a row, refused for the time being
  int64_t route_again_us = 0;                ///< when to look for a route again
  int64_t route_pause_us = 0;                ///< how long it waited for that

  route_work work;
  uint64_t counted = 0;          ///< tokens that `work` and what was free account for
  uint32_t receipts_open = 0;    ///< nodes whose receipts are waited for, or not yet in the book
  int64_t receipts_until_us = 0; ///< settled without them then; 0: it does not wait for any
  bool charged_late = false;     ///< free at first, charged from `charged_from` on
  uint32_t charged_from = 0;     ///< tokens produced before the charge began

  int64_t admitted_us = 0;
  int64_t began_us = 0;
  int64_t deadline_us = 0;
  generation_result result;

  generation(generation_request r, std::vector<int32_t> ids, text::tokenizer tokens)
      : request(std::move(r)), prompt(std::move(ids)),
        output(std::move(tokens), request.stop, request.max_tokens) {}

  /// Positions that must be in the cache before the next token can be sampled: prompt and all produced
  /// tokens.
  uint32_t positions() const { return static_cast<uint32_t>(prompt.size()) + output.count(); }
  /// Blocks of the KV pool that it can come to hold; the last token is never put into the cache.
  uint64_t kv_blocks() const {
    const uint64_t positions = prompt.size() + request.max_tokens - 1;
    return (positions + kernels::kv_block - 1) / kernels::kv_block;
  }
  /// The token at a position.
  int32_t token_at(uint32_t position) const {
    return position < prompt.size() ? prompt[position] : output.produced()[position - prompt.size()];
  }
  /// Counts what has been computed since the last time, positions up to `computed`, as work of the present
  /// route: each position once, however often it was computed.
  void count_work(uint64_t computed) {
    if (computed <= counted)
      return;
    work.done(session_id, route, computed - counted);
    counted = computed;
  }
  /// How the next token is drawn: the counter is the number of the token, so that a repeated call draws the
  /// same one.
  sample_spec sample(uint32_t valid_vocab) const {
    sample_spec spec;
    spec.temperature = request.temperature;
    spec.top_k = request.top_k < valid_vocab ? request.top_k : valid_vocab;
    spec.top_p = request.top_p;
    spec.seed = seed;
    spec.step = output.count();
    spec.valid_vocab = valid_vocab;
    spec.want_logprob = request.logprobs;
    return spec;
  }
};
using generation_ptr = std::shared_ptr<generation>;

} // namespace neuroshard

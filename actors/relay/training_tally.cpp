#include "actors/relay/training_tally.hpp"

#include <algorithm>
#include <iterator>

namespace neuroshard {

namespace {

uint64_t labels_in(const tensor_handle& labels) {
  if (!labels || !labels.on_host() || labels.view.type != kernels::dtype::i32)
    return 0;
  const auto* first = labels.view.as<const int32_t>();
  return static_cast<uint64_t>(
      std::count_if(first, first + labels.view.elements(), [](int32_t label) { return label >= 0; }));
}

} // namespace

void training_tally::bind(const forward_request& call, const std::string& driver, int64_t now_unix_ms) {
  what_ = {};
  what_.kind = receipt_kind::training;
  what_.work_id = call.header.session_id;
  what_.driver_node_id = driver;
  what_.layer_begin = call.layer_begin;
  what_.layer_end = call.layer_end;
  what_.model_version = call.header.model_version;
  what_.started_unix_ms = now_unix_ms;
  open_.clear();
  ended_.reset();
}

void training_tally::train(const forward_request& call, bool last) {
  if (!bound_to(call.header.session_id) || ended_)
    return;
  // A stage that is sent the next step has committed the one before by itself.
  while (!open_.empty() && open_.begin()->first < call.step)
    commit(call.header.session_id, open_.begin()->first);
  open_[call.step] += labels_in(call.labels);
  what_.embedding = what_.embedding || call.token_ids;
  what_.head = what_.head || (last && call.apply_head);
  if (open_.size() > open_steps_max)
    open_.erase(std::prev(open_.end()));
}

void training_tally::commit(const std::string& session, uint64_t step) {
  const auto at = open_.find(step);
  if (!bound_to(session) || at == open_.end())
    return;
  what_.tokens += at->second;
  ++what_.steps;
  open_.erase(at);
}

void training_tally::discard(const std::string& session, uint64_t step) {
  if (bound_to(session))
    open_.erase(step);
}

std::optional<signed_blob> training_tally::release(const std::string& session, const std::string& driver,
                                                   const node_identity& by, random_source& random,
                                                   int64_t now_unix_ms) {
  if (!bound_to(session) || what_.driver_node_id != driver || what_.steps == 0)
    return std::nullopt;
  open_.clear();
  if (!ended_)
    ended_ = seal_receipt(what_, driver, by, random, now_unix_ms);
  return ended_;
}

} // namespace neuroshard

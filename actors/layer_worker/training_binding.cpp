#include "actors/layer_worker/training_binding.hpp"

namespace neuroshard {

namespace {

caf::error precondition(const char* reason, std::string message) {
  problem what;
  what.reason = reason;
  what.message = std::move(message);
  return refuse(errc::failed_precondition, std::move(what));
}

} // namespace

caf::error training_binding::bind(const std::string& session, uint64_t last_committed_step, int64_t now_us) {
  if (session.empty() || session.size() > 64) {
    problem what;
    what.field = "session_id";
    what.message = "a training session needs an id of at most 64 characters";
    return refuse(errc::invalid_request, std::move(what));
  }
  if (bound() && session != session_ && now_us - heard_us_ < silence_us_max)
    return precondition("busy_pipeline", "this stage is bound to another driver");
  discard();
  session_ = session;
  heard_us_ = now_us;
  last_committed_ = last_committed_step;
  inner_steps_ = 0;
  return {};
}

void training_binding::release() {
  discard();
  session_.clear();
}

bool training_binding::expire(int64_t now_us) {
  if (!bound() || now_us - heard_us_ < silence_us_max)
    return false;
  release();
  return true;
}

caf::error training_binding::heard(const std::string& session, int64_t now_us) {
  if (!bound() || session != session_)
    return precondition("not_bound", "this stage is not bound to this training session");
  heard_us_ = now_us;
  return {};
}

caf::error training_binding::may_forward(uint64_t step, uint32_t microbatch) const {
  if (step <= last_committed_)
    return precondition("step", "step " + std::to_string(step) + " is not above the last committed step " +
                                    std::to_string(last_committed_));
  if (step_ == 0 || commits_first(step))
    return {};
  if (step != step_)
    return precondition("step", "step " + std::to_string(step_) + " is in hand and not ready");
  if (forwarded_.contains(microbatch))
    return precondition("duplicate_microbatch",
                        "micro-batch " + std::to_string(microbatch) + " was run already");
  if (last_ && microbatch > *last_)
    return precondition("step", "micro-batch " + std::to_string(microbatch) + " comes after the last one");
  return {};
}

bool training_binding::commits_first(uint64_t step) const noexcept {
  return step_ != 0 && step > step_ && ready();
}

void training_binding::forwarded(uint64_t step, uint32_t microbatch, bool is_last) {
  step_ = step;
  forwarded_.insert(microbatch);
  if (is_last)
    last_ = microbatch;
}

void training_binding::accumulated(uint64_t step, uint32_t microbatch) {
  if (step == step_)
    accumulated_.insert(microbatch);
}

caf::error training_binding::may_commit(uint64_t step) const {
  if (step == 0 || step != step_ || !ready())
    return precondition("not_ready", "step " + std::to_string(step) + " is not accumulated here");
  return {};
}

void training_binding::committed(uint64_t step) {
  last_committed_ = step;
  ++inner_steps_;
  discard();
}

void training_binding::discard() {
  step_ = 0;
  forwarded_.clear();
  accumulated_.clear();
  last_.reset();
}

} // namespace neuroshard

#include "gateway/http/generations.hpp"

#include "gateway/http/errors.hpp"
#include "gateway/http/json.hpp"

#include <algorithm>

namespace neuroshard::http {

namespace {

constexpr size_t kept_max = 256; ///< finished runs; beyond that the oldest goes

void write_costs(json_writer& out, const generation_result& r) {
  out.key("usage").begin();
  out.put("prompt_tokens", r.prompt_tokens).put("completion_tokens", r.completion_tokens);
  out.put("total_tokens", uint64_t{r.prompt_tokens} + r.completion_tokens).end();
  out.key("cost").begin().put("amount", r.cost).put("currency", "NEURO").end();
  out.key("timing").begin().put("queue_ms", r.queue_ms).put("inference_ms", r.inference_ms);
  out.put("total_ms", r.queue_ms + r.inference_ms).end();
}

} // namespace

std::string render_generation(const generation_result& r) {
  json_writer out;
  out.begin().put("id", r.id).put("text", r.text).put("tokens_generated", r.completion_tokens);
  out.put("finish_reason", r.finish_reason);
  write_costs(out, r);
  out.put("model_hash", r.model_hash).put("seed", r.seed);
  if (r.logprob)
    out.put("logprob", *r.logprob);
  if (r.failure) {
    out.key("error");
    write_error(out, code_of(*r.failure), problem_of(*r.failure), r.id);
  }
  out.end();
  return out.take();
}

std::string render_last_frame(const generation_result& r, std::string_view request_id) {
  json_writer out;
  out.begin().put("token", "[DONE]").put("finish_reason", r.finish_reason).put("id", r.id);
  write_costs(out, r);
  out.put("model_hash", r.model_hash).put("seed", r.seed);
  if (r.failure) {
    out.key("error");
    write_error(out, code_of(*r.failure), problem_of(*r.failure), request_id);
  }
  out.end();
  return out.take();
}

// -- stream_feed

void stream_feed::wake_later(std::unique_lock<std::mutex>& held) {
  const bool post = !std::exchange(wake_posted_, true);
  held.unlock();
  if (post)
    home_->post([me = shared_from_this()] {
      {
        const std::lock_guard hold(me->guard_);
        me->wake_posted_ = false;
      }
      me->wait.wake();
    });
}

void stream_feed::token(std::string text, uint32_t, std::optional<double> logprob) {
  std::unique_lock hold(guard_);
  if (frames_.size() + taken_ >= frames_max_)
    overflowed_ = true;
  else
    frames_.push_back({std::move(text), logprob});
  wake_later(hold);
}

void stream_feed::done(generation_result result) {
  std::unique_lock hold(guard_);
  result_ = std::move(result);
  wake_later(hold);
}

std::deque<stream_feed::frame> stream_feed::take() {
  const std::lock_guard hold(guard_);
  taken_ += frames_.size();
  return std::exchange(frames_, {});
}

void stream_feed::confirm_sent() {
  const std::lock_guard hold(guard_);
  taken_ = 0;
}

bool stream_feed::overflowed() {
  const std::lock_guard hold(guard_);
  return overflowed_;
}

std::optional<generation_result> stream_feed::result() {
  const std::lock_guard hold(guard_);
  return frames_.empty() ? result_ : std::nullopt;
}

// -- generation_run and generation_desk

void generation_run::done(generation_result result) {
  // Without a token there is nothing to show or to pay for: the failure is the answer.
  if (result.failure && result.completion_tokens == 0) {
    desk_->finish(*this, nullptr, std::move(*result.failure));
    return;
  }
  desk_->finish(*this, std::make_shared<const std::string>(render_generation(result)), std::nullopt);
}

generation_desk::generation_desk(const server_limits& limits) : limits_(limits) {}

void generation_desk::clear() {
  std::list<generation_run_ptr> dying;
  const std::lock_guard hold(guard_);
  dying.swap(runs_);
}

size_t generation_desk::live_count(const generation_run& run) {
  return static_cast<size_t>(
      std::count_if(run.clients_.begin(), run.clients_.end(), [](const run_client& c) { return c.live; }));
}

generation_desk::candidates generation_desk::find(const request_mark& mark) {
  candidates found;
  const std::lock_guard hold(guard_);
  for (const generation_run_ptr& run : runs_) {
    if (run->cancelled_ || run->mark_.token != mark.token || run->mark_.path != mark.path ||
        run->mark_.key != mark.key)
      continue;
    if (run->mark_.body != mark.body) {
      if (mark.key.empty())
        continue;
      problem what;
      what.message = "This Idempotency-Key was used with another body.";
      what.field = "Idempotency-Key";
      what.reason = "key_reused";
      found.conflict = refuse(errc::invalid_request, std::move(what));
      return found;
    }
    if (!mark.key.empty() || live_count(*run) == 0) {
      found.join = run;
      return found;
    }
    found.doubtful.push_back(run);
  }
  return found;
}

std::vector<run_client> generation_desk::live_clients(const generation_run_ptr& run) {
  const std::lock_guard hold(guard_);
  std::vector<run_client> live;
  for (const run_client& c : run->clients_)
    if (c.live)
      live.push_back(c);
  return live;
}

generation_run_ptr generation_desk::start(request_mark mark) {
  auto run = std::make_shared<generation_run>(shared_from_this(), std::move(mark));
  std::list<generation_run_ptr> dying; // destroyed after the lock is given back
  const std::lock_guard hold(guard_);
  runs_.push_back(run);
  size_t finished = 0;
  for (const auto& r : runs_)
    finished += r->finished_;
  for (auto at = runs_.begin(); finished > kept_max && at != runs_.end();) {
    if ((*at)->finished_) {
      const auto old = at++;
      dying.splice(dying.end(), runs_, old);
      --finished;
    } else {
      ++at;
    }
  }
  return run;
}

std::optional<generation_desk::client> generation_desk::join(const generation_run_ptr& run,
                                                             connection& link) {
  const std::lock_guard hold(guard_);
  // Under a key what was delivered is the answer all the same.
  if (run->cancelled_ || (run->delivered_ && run->mark_.key.empty()))
    return std::nullopt;
  return run->clients_.insert(run->clients_.end(),
                              {link.weak_from_this(), link.home(), std::make_shared<waker>(), true});
}

bool generation_desk::admitted(const generation_run_ptr& run, std::string id) {
  const std::lock_guard hold(guard_);
  run->id_ = std::move(id);
  return run->cancelled_ && !run->finished_;
}

void generation_desk::refused(const generation_run_ptr& run, caf::error why) {
  finish(*run, nullptr, std::move(why));
}

void generation_desk::finish(generation_run& run, shared_text body, std::optional<caf::error> why) {
  std::vector<std::pair<lane_ptr, std::shared_ptr<waker>>> waiting;
  generation_run_ptr keep;
  lane_ptr any;
  {
    const std::lock_guard hold(guard_);
    if (std::exchange(run.finished_, true))
      return;
    run.body_ = std::move(body);
    run.why_ = std::move(why);
    for (const run_client& c : run.clients_) {
      waiting.emplace_back(c.home, c.wait);
      any = c.home;
    }
    const auto at = std::find_if(runs_.begin(), runs_.end(), [&](const auto& r) { return r.get() == &run; });
    if (at != runs_.end()) {
      keep = *at;
      if (run.why_ || run.cancelled_) {
        runs_.erase(at); // only results are worth keeping for a client that asks again
        keep = nullptr;
      } else if (live_count(run) > 0) {
        keep = nullptr; // its fate is decided by the deliveries
      }
    }
  }
  for (const auto& [home, wait] : waiting)
    home->post([wait = wait] { wait->wake(); });
  if (keep && any)
    keep_for_a_while(keep, any);
}

std::optional<run_outcome> generation_desk::outcome(const generation_run_ptr& run) {
  const std::lock_guard hold(guard_);
  if (!run->finished_)
    return std::nullopt;
  return run_outcome{run->body_, run->why_};
}

void generation_desk::drop(const generation_run* run) {
  runs_.remove_if([run](const auto& r) { return r.get() == run; });
}

void generation_desk::keep_for_a_while(const generation_run_ptr& run, const lane_ptr& home) {
  home->after(limits_.undelivered_ms, [me = shared_from_this(), run] {
    const std::lock_guard hold(me->guard_);
    if (live_count(*run) == 0)
      me->drop(run.get());
  });
}

void generation_desk::client_gone(const generation_run_ptr& run, client who,
                                  std::function<void(std::string)> cancel) {
  {
    const std::lock_guard hold(guard_);
    if (!std::exchange(who->live, false) || run->finished_ || live_count(*run) > 0)
      return;
  }
  who->home->after(limits_.orphan_ms, [me = shared_from_this(), run, cancel = std::move(cancel)] {
    std::string id;
    {
      const std::lock_guard hold(me->guard_);
      if (run->finished_ || live_count(*run) > 0 || std::exchange(run->cancelled_, true))
        return;
      me->drop(run.get());
      id = run->id_;
    }
    if (!id.empty())
      cancel(id);
  });
}

void generation_desk::answered(const generation_run_ptr& run, client who, bool delivered) {
  lane_ptr home;
  {
    const std::lock_guard hold(guard_);
    who->live = false;
    home = who->home;
    if (delivered)
      run->delivered_ = true;
    if (run->delivered_) {
      drop(run.get());
      return;
    }
    if (!run->body_ || live_count(*run) > 0)
      return;
  }
  keep_for_a_while(run, home);
}

size_t generation_desk::size() const {
  const std::lock_guard hold(guard_);
  return runs_.size();
}

} // namespace neuroshard::http

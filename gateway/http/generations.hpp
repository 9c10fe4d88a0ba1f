#pragma once

#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/ledger/ledger_types.hpp"
#include "gateway/http/exchange.hpp"
#include "gateway/http/server.hpp"
#include "gateway/http/task.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard::http {

/// Tokens on their way from the scheduler's thread to one streaming connection. Bounded: more than
/// `frames_max` not yet taken by the socket set `overflowed`, and the handler then cancels.
class stream_feed final : public generation_sink, public std::enable_shared_from_this<stream_feed> {
public:
  struct frame {
    std::string text;
    std::optional<double> logprob;
  };
  stream_feed(lane_ptr home, size_t frames_max) : home_(std::move(home)), frames_max_(frames_max) {}

  void token(std::string text, uint32_t index, std::optional<double> logprob) override;
  void done(generation_result result) override;

  // -- on the lane
  /// Hands over what has come, which counts as unsent until `confirm_sent`.
  std::deque<frame> take();
  void confirm_sent();
  bool overflowed();
  /// The outcome, once all frames have been taken.
  std::optional<generation_result> result();
  waker wait;
  bool gone = false; ///< the client has gone

private:
  void wake_later(std::unique_lock<std::mutex>& held);
  lane_ptr home_;
  size_t frames_max_;
  std::mutex guard_;
  std::deque<frame> frames_;
  size_t taken_ = 0; ///< handed to the connection and not yet written
  bool overflowed_ = false;
  bool wake_posted_ = false;
  std::optional<generation_result> result_;
};

/// Who waits for a non-stream generation.
struct run_client {
  std::weak_ptr<connection> link;
  lane_ptr home;
  std::shared_ptr<waker> wait;
  bool live = true; ///< connected, as far as known, and not yet answered for good
};

class generation_desk;

/// A non-stream generation that one or, after a lost connection, several identical requests wait for. Guarded
/// by the desk's lock.
class generation_run final : public generation_sink {
public:
  generation_run(std::shared_ptr<generation_desk> desk, request_mark mark)
      : desk_(std::move(desk)), mark_(std::move(mark)) {}
  void token(std::string, uint32_t, std::optional<double>) override {}
  void done(generation_result result) override;

private:
  friend class generation_desk;
  std::shared_ptr<generation_desk> desk_; ///< the scheduler may hold a run longer than the server lives
  request_mark mark_;
  std::list<run_client> clients_;
  std::string id_;         ///< once admitted
  bool cancelled_ = false; ///< nobody came back in time
  bool finished_ = false;
  bool delivered_ = false;
  shared_text body_;              ///< of a 200
  std::optional<caf::error> why_; ///< otherwise
};
using generation_run_ptr = std::shared_ptr<generation_run>;

/// A generation's outcome: the response's JSON (200), or why there is none.
struct run_outcome {
  shared_text body;
  std::optional<caf::error> why;
};

/// Duplicate suppression of non-stream inference (http-api.md section 5.3): which generations run or wait
/// undelivered, and who may be given their result. In memory: what is lost with the process is lost with the
/// client's connection too. Thread safe.
class generation_desk : public std::enable_shared_from_this<generation_desk> {
public:
  using client = std::list<run_client>::iterator;

  explicit generation_desk(const server_limits& limits);
  /// Forgets everything; the server is stopping.
  void clear();

  /// How an arriving request relates to what is here.
  struct candidates {
    caf::error conflict;                      ///< same Idempotency-Key, other body
    generation_run_ptr join;                  ///< to be joined as it is
    std::vector<generation_run_ptr> doubtful; ///< to be joined if all its clients prove gone
  };
  candidates find(const request_mark& mark);
  /// The clients of a run that seem connected, for a look at their sockets.
  std::vector<run_client> live_clients(const generation_run_ptr& run);

  generation_run_ptr start(request_mark mark);
  /// Nothing when the run has been cancelled meanwhile or, without a key, its result has reached a client.
  std::optional<client> join(const generation_run_ptr& run, connection& link);
  /// True when nobody waits any more and the generation is to be cancelled at once.
  bool admitted(const generation_run_ptr& run, std::string id);
  void refused(const generation_run_ptr& run, caf::error why);
  /// Nothing while it runs.
  std::optional<run_outcome> outcome(const generation_run_ptr& run);

  /// The client has gone while it waited. When it was the last, `cancel(id)` is called after the grace,
  /// unless another joins.
  void client_gone(const generation_run_ptr& run, client who, std::function<void(std::string id)> cancel);
  /// What became of the response to a client.
  void answered(const generation_run_ptr& run, client who, bool delivered);
  /// Runs that are known, for tests and status.
  size_t size() const;

private:
  friend class generation_run;
  void finish(generation_run& run, shared_text body, std::optional<caf::error> why);
  void drop(const generation_run* run);
  void keep_for_a_while(const generation_run_ptr& run, const lane_ptr& home);
  static size_t live_count(const generation_run& run);

  const server_limits limits_;
  mutable std::mutex guard_;
  std::list<generation_run_ptr> runs_; ///< oldest first; at most kept_max finished ones
};

/// The body of a non-stream response.
std::string render_generation(const generation_result& r);
/// The last frame of a stream, without "data: " and the blank line.
std::string render_last_frame(const generation_result& r, std::string_view request_id);

} // namespace neuroshard::http

#include "actors/common/log.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/json.hpp"
#include "gateway/http/middlewares/idempotency.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

namespace neuroshard::http {

namespace {

constexpr size_t prompt_bytes_max = 256 * 1024;

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct parsed_request {
  generation_request what;
  bool stream = false;
};

caf::expected<parsed_request> parse_request(const gateway& g, const std::string& body) {
  const auto json = parse_json(body);
  if (!json)
    return json.error();
  const int64_t context = g.node.board->read()->identity.context_length;
  field_reader in(*json);
  parsed_request out;
  generation_request& what = out.what;
  what.prompt = in.text("prompt", true, 1, prompt_bytes_max).value_or("");
  what.max_tokens = static_cast<uint32_t>(
      in.integer("max_tokens", false, 1, std::max<int64_t>(context - 1, 1)).value_or(100));
  what.temperature = static_cast<float>(in.real("temperature", 0, 2).value_or(1));
  what.top_p = static_cast<float>(in.real("top_p", 0, 1, true).value_or(1));
  // Above any vocabulary is the same as the whole vocabulary.
  what.top_k = static_cast<uint32_t>(
      in.integer("top_k", false, 0, std::numeric_limits<int32_t>::max(), true).value_or(50));
  what.stop = in.texts("stop", 16, 128);
  out.stream = in.boolean("stream").value_or(false);
  what.seed = in.unsigned64("seed");
  what.logprobs = in.boolean("logprobs").value_or(false);
  if (in.failed())
    return in.complaint();
  // A top_p that is above 0 only as a double must stay above 0.
  what.top_p = std::max(what.top_p, std::numeric_limits<float>::min());
  return out;
}

/// One SSE frame. `text` "[DONE]" alone would end the stream for the client, so it goes out in two.
void append_frames(std::string& to, const stream_feed::frame& f, uint64_t& index, bool logprobs) {
  const auto one = [&](std::string_view text, double logprob) {
    json_writer out;
    out.begin().put("token", text).put("index", index++);
    if (logprobs)
      out.put("logprob", logprob);
    out.end();
    to += "data: ";
    to += out.take();
    to += "\n\n";
  };
  const double logprob = f.logprob.value_or(0);
  if (f.text == "[DONE]") {
    one("[DO", logprob);
    one("NE]", 0);
  } else {
    one(f.text, logprob);
  }
}

void begin_events(exchange& x) {
  x.link.begin_stream("text/event-stream", "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n");
}

response end_of_stream() {
  response r;
  r.streamed = true;
  return r;
}

/// Hands a request to the scheduler. One that is admitted only after the client was told of a timeout is
/// taken back, at no cost.
task<caf::expected<generation_admitted>> admit(gateway& g, exchange& x, generation_request&& what) {
  std::function<void(generation_admitted&)> undo = [&g](generation_admitted& late) {
    log::debug("http", "generation-unheard id={}", late.id);
    g.asker.tell(g.node.scheduler.get(), cancel_generation{std::move(late.id), true});
  };
  const int64_t patience_ms = g.settings.inference_timeout_s * 1000;
  return ask_or_undo<generation_admitted>(g.asker, x.link, g.node.scheduler.get(), patience_ms,
                                          std::move(undo), std::move(what));
}

task<response> stream_generation(gateway& g, exchange& x, generation_request what) {
  const server_limits& limits = g.settings.limits;
  const bool logprobs = what.logprobs;
  auto feed = std::make_shared<stream_feed>(x.link.home(), limits.unsent_frames);
  what.sink = feed;
  x.link.on_gone([feed] {
    feed->gone = true;
    feed->wait.wake();
  });
  const auto admitted = co_await admit(g, x, std::move(what));
  if (!admitted)
    co_return error_response(admitted.error(), x.request_id);
  const int64_t head_due = now_ms() + limits.stream_header_ms;
  bool begun = false;
  int64_t last_sent = 0;
  uint64_t index = 0;
  const auto send = [&](std::string_view text) {
    if (!std::exchange(begun, true))
      begin_events(x);
    if (!text.empty())
      x.link.send(text);
    last_sent = now_ms();
  };
  for (;;) {
    if (feed->gone || feed->overflowed()) {
      log::debug("http", "stream-cancelled id={} gone={}", admitted->id, feed->gone);
      g.asker.tell(g.node.scheduler.get(), cancel_generation{admitted->id});
      break;
    }
    if (!x.link.unsent()) {
      feed->confirm_sent();
      const auto frames = feed->take();
      if (!frames.empty()) {
        std::string text;
        for (const auto& f : frames)
          append_frames(text, f, index, logprobs);
        send(text);
        continue;
      }
      if (const auto result = feed->result()) {
        if (!begun && result->failure && result->completion_tokens == 0)
          co_return error_response(*result->failure, x.request_id);
        send("data: " + render_last_frame(*result, x.request_id) + "\n\n");
        co_return end_of_stream();
      }
      const int64_t due = begun ? last_sent + limits.ping_ms : head_due;
      if (now_ms() >= due) {
        send(begun ? ": ping\n\n" : "");
        continue;
      }
      x.link.wake_after(due - now_ms(), [feed] { feed->wait.wake(); });
    } else {
      x.link.on_written([feed] { feed->wait.wake(); });
    }
    co_await until_woken{feed->wait};
  }
  if (!begun)
    co_return error_response(refuse(errc::cancelled, "The generation was cancelled."), x.request_id);
  response r = end_of_stream();
  r.close = true;
  co_return r;
}

/// Whether every client of a run has in truth gone: looks at their sockets, each on its own lane. One that
/// has closed after its response has it: that is settled first, so that nobody joins what was delivered.
task<bool> all_gone(const exchange& x, std::vector<run_client> clients) {
  struct survey {
    waker wait;
    size_t open;
    bool connected = false;
  };
  auto asked = std::make_shared<survey>();
  asked->open = clients.size();
  const lane_ptr home = x.link.home();
  for (const run_client& c : clients)
    c.home->post([asked, home, link = c.link] {
      const auto held = link.lock();
      if (held)
        held->settle_by_look();
      const bool gone = !held || held->peer_gone();
      home->post([asked, gone] {
        asked->connected = asked->connected || !gone;
        if (--asked->open == 0)
          asked->wait.wake();
      });
    });
  while (asked->open > 0)
    co_await until_woken{asked->wait};
  co_return !asked->connected;
}

response outcome_response(const exchange& x, const run_outcome& outcome) {
  if (outcome.why)
    return error_response(*outcome.why, x.request_id);
  response r;
  r.shared_body = outcome.body;
  return r;
}

/// Waits for a run as one of its clients.
task<run_outcome> wait_for(gateway& g, exchange& x, generation_run_ptr run, generation_desk::client me) {
  x.link.on_gone([&g, run, me, home = x.link.home()] {
    g.generations->client_gone(run, me, [&g](std::string id) {
      log::debug("http", "generation-orphaned id={}", id);
      g.asker.tell(g.node.scheduler.get(), cancel_generation{std::move(id)});
    });
  });
  for (;;) {
    if (auto outcome = g.generations->outcome(run))
      co_return std::move(*outcome);
    co_await until_woken{*me->wait};
  }
}

task<response> whole_generation(gateway& g, exchange& x, generation_request what) {
  const auto mark = mark_of(x);
  if (!mark)
    co_return error_response(mark.error(), x.request_id);
  if (!mark->key.empty()) {
    // Named: g++ 12 may destroy an aggregate that is a temporary of a co_await expression twice.
    const find_response question{*mark};
    const auto stored = co_await g.ask_actor<found_response>(x, g.node.ledger, question);
    if (!stored)
      co_return error_response(stored.error(), x.request_id);
    if (stored->found) {
      response r;
      r.body = stored->response;
      co_return r;
    }
  }
  const auto known = g.generations->find(*mark);
  if (known.conflict)
    co_return error_response(known.conflict, x.request_id);
  generation_run_ptr run = known.join;
  std::optional<generation_desk::client> joined;
  if (run)
    joined = g.generations->join(run, x.link);
  for (size_t i = 0; !joined && i < known.doubtful.size(); ++i) {
    run = known.doubtful[i];
    const auto clients = g.generations->live_clients(run);
    const bool gone = co_await all_gone(x, clients);
    if (gone)
      joined = g.generations->join(run, x.link);
  }
  const bool mine = !joined;
  if (mine) {
    run = g.generations->start(*mark);
    joined = g.generations->join(run, x.link);
  }
  const generation_desk::client me = *joined;
  if (mine) {
    what.sink = run;
    const auto admitted = co_await admit(g, x, std::move(what));
    if (!admitted)
      g.generations->refused(run, admitted.error());
    else if (g.generations->admitted(run, admitted->id))
      g.asker.tell(g.node.scheduler.get(), cancel_generation{admitted->id});
  }
  const run_outcome outcome = co_await wait_for(g, x, run, me);
  if (mine && outcome.body && !mark->key.empty()) {
    const keep_response record{*mark, *outcome.body};
    const auto kept = co_await g.ask_actor<found_response>(x, g.node.ledger, record);
    if (!kept)
      log::warn("http", "response-not-stored id={} why={}", x.request_id, problem_of(kept.error()).message);
  }
  response r = outcome_response(x, outcome);
  r.on_delivery = [&g, run, me](bool delivered) { g.generations->answered(run, me, delivered); };
  co_return r;
}

} // namespace

task<response> post_inference(gateway& g, exchange& x) {
  auto parsed = parse_request(g, x.in.body);
  if (!parsed)
    co_return error_response(parsed.error(), x.request_id);
  if (parsed->stream)
    co_return co_await stream_generation(g, x, std::move(parsed->what));
  co_return co_await whole_generation(g, x, std::move(parsed->what));
}

} // namespace neuroshard::http

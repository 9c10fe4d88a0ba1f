#include "tests/actors/inference_scheduler/scheduler_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(scheduler_fixture, "a prompt that does not fit the context is refused with the limit") {
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto refused = ask<generation_admitted>(*this, actor, request(sink, std::string(300, 'a'), 5));
  CHECK(refused.code() == errc::invalid_request);
  const auto what = problem_of(refused.refused);
  CHECK(what.field == "prompt");
  REQUIRE(what.details.size() == 2);
  CHECK(what.details[0].first == "limit");
  CHECK(std::get<int64_t>(what.details[0].second) == 256);
  CHECK(std::get<int64_t>(what.details[1].second) == 301);
  CHECK(ask<generation_admitted>(*this, actor, request(sink, std::string(250, 'a'), 5)));
  CHECK(ask<generation_admitted>(*this, actor, request(sink, std::string(250, 'a'), 6)).code() ==
        errc::invalid_request);
}

TEST_CASE_FIXTURE(scheduler_fixture, "values out of range are refused by name") {
  auto actor = make();
  const auto refused = [&](auto change, const char* field) {
    auto r = request(std::make_shared<recording_sink>());
    change(r);
    auto answered = ask<generation_admitted>(*this, actor, std::move(r));
    CHECK(answered.code() == errc::invalid_request);
    CHECK(problem_of(answered.refused).field == field);
  };
  refused([](auto& r) { r.prompt.clear(); }, "prompt");
  refused([](auto& r) { r.prompt.assign(size_t{1} << 19, 'a'); }, "prompt");
  refused([](auto& r) { r.max_tokens = 0; }, "max_tokens");
  refused([](auto& r) { r.max_tokens = 4'000'000'000; }, "prompt");
  refused([](auto& r) { r.temperature = -1; }, "temperature");
  refused([](auto& r) { r.temperature = std::numeric_limits<float>::quiet_NaN(); }, "temperature");
  refused([](auto& r) { r.top_p = 0; }, "top_p");
  refused([](auto& r) { r.stop.assign(17, "a"); }, "stop");
  refused([](auto& r) { r.stop = {""}; }, "stop");
  refused([](auto& r) { r.stop = {std::string(129, 'a')}; }, "stop");
}

TEST_CASE_FIXTURE(scheduler_fixture, "before there is a serving copy the answer is not_ready") {
  copy_id = 0;
  auto actor = make();
  CHECK(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>())).code() ==
        errc::not_ready);
}

TEST_CASE_FIXTURE(scheduler_fixture, "self-service reserves nothing and costs nothing") {
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  REQUIRE(sink->result);
  CHECK(sink->result->cost == neuro_amount{});
  CHECK(money->settled.empty());
  CHECK(money->refunded.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a charged generation is reserved before any work and settled for what it used") {
  options.charge_self = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto admitted = ask<generation_admitted>(*this, actor, request(sink, "hello", 5));
  REQUIRE(admitted);
  CHECK(admitted->prompt_tokens == 6);
  CHECK(admitted->id.size() == 4 + 24);
  REQUIRE(money->settled.size() == 1);
  const auto& bill = money->settled.front();
  CHECK(bill.request_id == admitted->id);
  CHECK(bill.prompt_tokens == 6);
  CHECK(bill.completion_tokens == 5);
  CHECK(bill.driver == options.address);
  REQUIRE(bill.workers.size() == 1);
  CHECK(bill.workers.front().counted_work == 20);
  CHECK(sink->result->cost == neuro_amount{1100});
  CHECK(money->open.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "who cannot pay is refused before any work") {
  options.charge_self = true;
  money->poor = true;
  auto actor = make();
  CHECK(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>())).code() ==
        errc::insufficient_balance);
  CHECK(calls.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "a full queue says overloaded, and when to come again") {
  options.max_queue = 3;
  options.batch_max = 1;
  // The model never answers, so everything after the first generation waits.
  caf::actor silent = sys.spawn([](caf::event_based_actor*) -> caf::behavior {
    return {[](const session_copy&) -> serving_info {
              return {1, 0, 0};
            },
            [](const forward_request&) -> caf::result<forward_reply> { return caf::skip(); }};
  });
  keep(silent);
  inference_parts parts;
  parts.worker = caf::actor_cast<layer_worker_actor>(silent);
  parts.relay = relay_to(parts.worker);
  parts.time = clock;
  parts.random = std::make_shared<counting_random>();
  parts.counters = counters;
  auto actor = keep(sys.spawn(inference_scheduler, options, parts));
  auto sink = std::make_shared<recording_sink>();
  for (int i = 0; i < 4; ++i)
    CHECK(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>())));
  auto refused = ask<generation_admitted>(*this, actor, request(sink));
  CHECK(refused.code() == errc::overloaded);
  CHECK(problem_of(refused.refused).details.front().first == "retry_after");
  CHECK(counters->inference_queued == 3);
  CHECK(counters->inference_running == 1);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a newcomer waits while the memory for keys and values may be needed by what runs") {
  kv_blocks = 4; // 64 positions: one generation of 6 + 40 at a time, or three small ones
  auto actor = make();
  std::vector<std::shared_ptr<recording_sink>> sinks;
  std::vector<asked<generation_admitted, decltype(self->request(actor, caf::infinite, generation_request{}))>>
      all;
  for (int i = 0; i < 3; ++i) {
    sinks.push_back(std::make_shared<recording_sink>());
    all.push_back(ask_later<generation_admitted>(*this, actor, request(sinks.back(), "hello", 40)));
  }
  sched.run();
  for (auto& one : all)
    CHECK(one.receive());
  CHECK(rows_max == 1);
  for (const auto& sink : sinks) {
    REQUIRE(sink->result);
    CHECK(sink->result->completion_tokens == 40);
  }
  all.clear();
  sinks.clear();
  for (int i = 0; i < 3; ++i) {
    sinks.push_back(std::make_shared<recording_sink>());
    all.push_back(ask_later<generation_admitted>(*this, actor, request(sinks.back(), "hello", 10)));
  }
  sched.run();
  for (auto& one : all)
    CHECK(one.receive());
  CHECK(rows_max == 3);
  // What can never fit is refused at once, with what would.
  auto refused =
      ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>(), "hello", 60));
  CHECK(refused.code() == errc::overloaded);
  const auto what = problem_of(refused.refused);
  REQUIRE(what.details.size() == 3);
  CHECK(what.details[1].first == "limit");
  CHECK(std::get<int64_t>(what.details[1].second) == 64);
}

TEST_CASE_FIXTURE(scheduler_fixture, "a sample of the node's own is neither counted nor charged") {
  options.charge_self = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto sample = request(sink);
  sample.own = true;
  REQUIRE(ask<generation_admitted>(*this, actor, std::move(sample)));
  REQUIRE(sink->result);
  CHECK(sink->result->completion_tokens == 5);
  CHECK(money->settled.empty());
  CHECK(money->open.empty());
  CHECK(counters->inference_requests == 0);
  CHECK(counters->inference_tokens == 0);
  CHECK(counters->latency_count == 0);
  REQUIRE(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>())));
  CHECK(counters->inference_requests == 1);
  CHECK(counters->inference_tokens == 5);
  CHECK(counters->latency_count == 1);
}

TEST_CASE_FIXTURE(scheduler_fixture, "a draining scheduler takes nothing new") {
  auto actor = make();
  CHECK(ask<caf::unit_t>(*this, actor, drain_atom_v));
  CHECK(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>())).code() ==
        errc::draining);
}

#include "tests/actors/inference_scheduler/route_generation_fixture.hpp"

#include <cstdlib>
#include <random>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

constexpr uint32_t tokens_asked = 10;

/// What the model says where nothing happens.
std::string undisturbed(const std::string& prompt = "hello", uint64_t seed = 1) {
  route_generation_fixture f;
  f.spawn();
  auto sink = f.start(prompt, tokens_asked, seed);
  f.run({sink});
  REQUIRE(sink->result);
  REQUIRE(sink->result->finish_reason == "length");
  return sink->result->text;
}

void check_whole(const recording_sink& sink, const std::string& text) {
  REQUIRE(sink.result);
  INFO((sink.result->failure ? problem_of(*sink.result->failure).message : std::string()));
  CHECK(sink.result->finish_reason == "length");
  CHECK(sink.result->completion_tokens == tokens_asked);
  CHECK(sink.result->text == text);
  CHECK(sink.text() == text);
}

bool has_tokens(const routed_forward& call) {
  return call.work.token_ids || call.work.hidden;
}

} // namespace

TEST_CASE("three nodes say what one says, and free their sessions") {
  std::string alone;
  {
    route_generation_fixture f;
    f.ranges = {{0, 3}};
    f.spawn();
    auto sink = f.start();
    f.run({sink});
    REQUIRE(sink->result);
    alone = sink->result->text;
    CHECK(f.outcomes.empty());
  }
  route_generation_fixture f;
  f.network_hash = std::string(64, 'e'); // a node that holds a part cannot say what all of it is
  f.spawn();
  auto sink = f.start();
  CHECK(f.run({sink}) == 0);
  check_whole(*sink, alone);
  CHECK(sink->result->model_hash == f.network_hash);
  for (size_t node : {0, 1, 2})
    CHECK(f.sessions(node) == "0");
  // Each node is told of once a second, whatever the number of calls.
  CHECK(f.outcomes.size() == 4);
  for (const auto& of : f.outcomes)
    CHECK_FALSE(of.failed);
}

TEST_CASE("a prompt of several chunks goes along the whole route") {
  const auto text_of = [](uint32_t chunk, bool disturbed) {
    route_generation_fixture f;
    f.options.prefill_chunk = chunk;
    f.spawn();
    if (disturbed)
      f.network->on_forward = [&f, calls = 0](const std::string& to, routed_forward&) mutable {
        return to != f.address(1) || ++calls != 2;
      };
    auto sink = f.start("the quick brown fox jumps over the lazy dog");
    f.run({sink});
    REQUIRE(sink->result);
    CHECK(sink->result->completion_tokens == tokens_asked);
    return sink->result->text;
  };
  const auto whole = text_of(64, false);
  CHECK(text_of(8, false) == whole);
  CHECK(text_of(8, true) == whole);
}

TEST_CASE("a stage that dies at any token is replaced, and the text goes on as it would have") {
  const auto text = undisturbed();
  enum class way { refused, answer_lost, stopped };
  for (const auto how : {way::refused, way::answer_lost, way::stopped}) {
    for (const size_t victim : {1, 2}) {
      for (int at = 0; at < static_cast<int>(tokens_asked); ++at) {
        INFO("way " << static_cast<int>(how) << " node " << victim << " call " << at);
        route_generation_fixture f;
        f.spawn();
        int calls = 0;
        f.network->on_forward = [&](const std::string& to, routed_forward& call) {
          if (to == f.address(victim) && has_tokens(call) && calls++ == at) {
            if (how == way::stopped)
              f.network->stopped.insert(to);
            if (how == way::refused)
              f.network->down.insert(to);
          }
          return !f.network->down.contains(to);
        };
        f.network->on_answer = [&](const std::string& from, routed_forward_reply&) {
          if (how == way::answer_lost && from == f.address(victim) && calls == at + 1)
            f.network->down.insert(from);
          return !f.network->down.contains(from);
        };
        auto sink = f.start();
        const int64_t took_us = f.run({sink});
        check_whole(*sink, text);
        CHECK(f.failed_outcomes(victim) == 1);
        CHECK(f.failed_outcomes(3 - victim) == 0);
        CHECK(f.asked_for.back().exclude == std::vector<std::string>{work_network::id_of(victim)});
        if (how != way::stopped)
          CHECK(took_us == 0);
        else if (at > 0) // the budget of a decode along three hops, not that of a prompt
          CHECK(took_us <= 3'000'000);
        for (size_t node : {0, 1, 2, 3, 4})
          if (node != victim)
            CHECK(f.sessions(node) == "0");
      }
    }
  }
}

TEST_CASE("one replica after the other dies within one generation") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.spawn();
  int calls = 0;
  f.network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (has_tokens(call)) {
      ++calls;
      if (calls == 5)
        f.network->down.insert(f.address(1));
      if (calls == 9) // at the replacement's first prefill
        f.network->down.insert(f.address(2));
    }
    return !f.network->down.contains(to);
  };
  auto sink = f.start();
  f.run({sink});
  check_whole(*sink, text);
  CHECK(f.failed_outcomes(1) == 1);
  CHECK(f.failed_outcomes(2) == 1);
}

TEST_CASE(
    "with all replicas gone a generation waits, goes on when one is back, and else ends with no_route") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.spawn();
  auto sink = f.start();
  while (sink->pieces.size() < 4)
    REQUIRE(f.sched.try_run_once());
  f.network->down = {f.address(1), f.address(3)};
  f.sched.run();
  CHECK(f.counters->inference_running == 1);
  SUBCASE("the peer manager goes on naming them") {
    f.run({sink}, 20);
    REQUIRE_FALSE(sink->result);
    CHECK(f.asked_for.size() < 40); // it waits longer each time
    f.network->down.clear();
    CHECK(f.run({sink}) <= 6'000'000);
    check_whole(*sink, text);
  }
  SUBCASE("the peer manager knows") {
    f.gone = {1, 3};
    f.run({sink}, 20);
    REQUIRE_FALSE(sink->result);
    f.gone = {3};
    f.network->down.clear();
    CHECK(f.run({sink}) <= 6'000'000);
    check_whole(*sink, text);
  }
  SUBCASE("for ever") {
    f.run({sink});
    REQUIRE(sink->result);
    CHECK(sink->result->finish_reason == "error");
    CHECK(code_of(*sink->result->failure) == errc::no_route);
    CHECK(problem_of(*sink->result->failure).reason == "no_route");
    CHECK(text.starts_with(sink->result->text));
    CHECK(sink->result->completion_tokens >= 4);
  }
  SUBCASE("until the node is shut down") {
    auto drained = ask_later<caf::unit_t>(f, f.scheduler, drain_atom_v);
    f.run({sink}, 11);
    REQUIRE(sink->result);
    CHECK(code_of(*sink->result->failure) == errc::draining);
    CHECK(drained.receive());
  }
}

TEST_CASE("of many dead replicas a few are tried at a time, and the one that lives is found") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.ranges = {{0, 1}, {1, 2}, {1, 2}, {1, 2}, {1, 2}, {1, 2}, {1, 2}, {2, 3}};
  f.spawn();
  for (size_t node = 1; node < 6; ++node)
    f.network->down.insert(f.address(node));
  auto sink = f.start();
  f.sched.run();
  CHECK(f.network->calls.size() == 4 + 4); // each refused call, and the close of the hop behind
  CHECK(f.run({sink}) <= 1'000'000);
  check_whole(*sink, text);
}

TEST_CASE("a generation is cancelled at any moment of a failover") {
  for (int step = 0; step < 60; ++step) {
    INFO("step " << step);
    route_generation_fixture f;
    f.spawn();
    auto sink = std::make_shared<recording_sink>();
    auto admitted = ask_later<generation_admitted>(f, f.scheduler,
                                                   scheduler_fixture::request(sink, "hello", tokens_asked));
    while (sink->pieces.size() < 4)
      REQUIRE(f.sched.try_run_once());
    f.network->down = {f.address(1)};
    for (int i = 0; i < step; ++i)
      f.sched.try_run_once();
    caf::anon_send(f.scheduler, cancel_generation{admitted.receive()->id});
    f.run({sink}, 10);
    REQUIRE(sink->result);
    if (sink->result->failure)
      CHECK(code_of(*sink->result->failure) == errc::cancelled);
    for (size_t node : {0, 2, 3})
      CHECK(f.sessions(node) == "0");
  }
}

TEST_CASE("a row lost at a middle hop moves its generation alone, and two routes are decoded side by side") {
  const auto first = undisturbed("hello", 1), second = undisturbed("other", 2);
  route_generation_fixture f;
  f.spawn();
  std::string lost;
  int decodes = 0;
  size_t together = 0;
  std::set<std::string> routes;
  f.network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == f.address(1) && call.work.mode == forward_mode::decode && has_tokens(call)) {
      together = std::max(together, call.work.rows.size());
      if (++decodes == 3) { // that node forgets a session
        lost = call.work.rows.front().session_id;
        forward_request close;
        close.mode = forward_mode::decode;
        close.layer_begin = 1;
        close.layer_end = 2;
        session_row row;
        row.session_id = lost;
        row.close = true;
        close.rows.push_back(row);
        caf::anon_send(f.workers[1], std::move(close));
      }
    }
    if (!lost.empty() && has_tokens(call))
      routes.insert(to);
    return true;
  };
  auto one = f.start("hello", tokens_asked, 1);
  auto two = f.start("other", tokens_asked, 2);
  CHECK(f.run({one, two}) == 0);
  check_whole(*one, first);
  check_whole(*two, second);
  CHECK(together == 2);
  CHECK(routes.contains(f.address(3)));
  CHECK(routes.contains(f.address(1)));
  CHECK(f.failed_outcomes(1) == 1);
}

TEST_CASE("weights that no replica serves any more end a generation with aborted") {
  route_generation_fixture f;
  f.spawn();
  auto sink = f.start();
  while (sink->pieces.size() < 4)
    REQUIRE(f.sched.try_run_once());
  f.network->down = {f.address(1)};
  SUBCASE("the replica has newer ones") {
    auto newer = ask_later<serving_info>(f, f.workers[3], refresh_serving{1, 500});
    f.run({sink}, 10);
    CHECK(newer.receive());
  }
  SUBCASE("this node has newer ones") {
    auto newer = ask_later<serving_info>(f, f.workers[0], refresh_serving{1, 500});
    f.run({sink}, 10);
    CHECK(newer.receive());
  }
  REQUIRE(sink->result);
  REQUIRE(sink->result->failure);
  CHECK(code_of(*sink->result->failure) == errc::aborted);
  CHECK(sink->result->completion_tokens >= 4);
}

TEST_CASE("what has not said anything yet begins again with the weights there are") {
  route_generation_fixture f;
  f.spawn();
  // Between the choice of a route and the prompt everybody comes to the next version.
  f.options.max_queue = 8;
  bool once = true;
  f.network->on_forward = [&](const std::string&, routed_forward& call) {
    if (call.work.mode != forward_mode::prefill || !std::exchange(once, false))
      return true;
    for (const auto& worker : f.workers)
      caf::anon_send(worker, refresh_serving{1, 500});
    return true;
  };
  auto sink = f.start();
  f.run({sink});
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  CHECK(f.asked_for.back().model_version == 1);
}

TEST_CASE("a hop that answers with what cannot be is left") {
  const auto text = undisturbed();
  int calls = 0;
  route_generation_fixture f;
  std::function<void(routed_forward_reply&)> spoil;
  SUBCASE("a token beyond the vocabulary") {
    spoil = [](routed_forward_reply& reply) {
      reply.work.sampled.assign(reply.work.sampled.size(), 1 << 20);
    };
  }
  SUBCASE("no token") {
    spoil = [](routed_forward_reply& reply) { reply.work.sampled.clear(); };
  }
  SUBCASE("the blame on a node that is not on the route") {
    spoil = [](routed_forward_reply& reply) {
      for (auto& row : reply.work.rows)
        row = {row_status::evicted, 0, 0, std::string(32, 'f')};
    };
  }
  SUBCASE("no rows") {
    spoil = [](routed_forward_reply& reply) { reply.work.rows.clear(); };
  }
  f.spawn();
  f.network->on_answer = [&](const std::string& from, routed_forward_reply& reply) {
    if (from == f.address(2) && ++calls == 4)
      spoil(reply);
    return true;
  };
  auto sink = f.start();
  f.run({sink});
  check_whole(*sink, text);
  CHECK(f.asked_for.back().exclude.size() == 1);
}

TEST_CASE("a hop that refuses a call is replaced, whatever its reason and whomever it names") {
  const auto text = undisturbed();
  for (const auto code : {errc::not_found, errc::failed_precondition, errc::aborted, errc::unavailable,
                          errc::overloaded, errc::timeout, errc::internal, errc::forbidden, errc::draining})
    for (const std::string named : {"", "0", "f"})
      for (int at : {0, 1, 5}) {
        INFO("code " << to_string(code) << " named " << named << " call " << at);
        route_generation_fixture f;
        f.spawn();
        int calls = 0;
        f.network->refuses = [&](const std::string& to, const routed_forward& call) -> caf::error {
          if (to != f.address(1) || !has_tokens(call) || calls++ < at)
            return {};
          problem what;
          if (!named.empty())
            what.details = {{"failed_hop", named == "0" ? work_network::id_of(0) : std::string(32, 'f')}};
          return refuse(code, std::move(what));
        };
        auto sink = f.start();
        CHECK(f.run({sink}) == 0);
        check_whole(*sink, text);
        CHECK(f.failed_outcomes(1) == 1);
        CHECK(calls == at + 1);
      }
}

TEST_CASE("activations that a hop refuses are laid to the one that sent them") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.spawn();
  int calls = 0;
  f.network->on_forward = [&](const std::string& to, routed_forward& call) {
    // Node 1 goes wrong from its fourth call on: what it sends on has no meaning.
    if (to == f.address(2) && f.network->calls.back().ends_with(" 2->3") && has_tokens(call) && ++calls >= 4)
      call.work.hidden.view.shape[2] -= 1;
    return true;
  };
  auto sink = f.start();
  f.run({sink});
  check_whole(*sink, text);
  CHECK(f.failed_outcomes(1) == 1);
  CHECK(f.failed_outcomes(2) == 0);
}

TEST_CASE("a node without the first layers drives a generation over one that has them") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.driver = 2;
  f.ranges = {{0, 1}, {1, 2}, {2, 3}, {1, 2}, {0, 1}};
  f.spawn();
  int calls = 0;
  f.network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == f.address(0) && has_tokens(call) && ++calls == 5)
      f.network->down.insert(to);
    return !f.network->down.contains(to);
  };
  auto sink = f.start();
  f.run({sink});
  check_whole(*sink, text);
  CHECK(f.failed_outcomes(0) == 1);
}

TEST_CASE("what other wallets' nodes did is counted, named in the bill, and not paid without a receipt") {
  route_generation_fixture f;
  f.other_wallet = {1, 2};
  f.spawn();
  auto sink = f.start();
  f.run({sink});
  REQUIRE(sink->result);
  REQUIRE(f.money->settled.size() == 1);
  const auto& bill = f.money->settled.front();
  CHECK(bill.prompt_tokens == 6);
  CHECK(bill.completion_tokens == tokens_asked);
  CHECK(bill.driver == f.options.address);
  CHECK(bill.validator.empty());
  REQUIRE(bill.workers.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(bill.workers[i].address == (i == 0 ? f.options.address : ""));
    CHECK(bill.workers[i].counted_work == 15);
    CHECK(bill.workers[i].credited_work == (i == 0 ? 15 : 0));
  }
  CHECK(f.money->open.empty());
}

TEST_CASE("nodes of one wallet cost nothing, and are paid like this one where it is charged") {
  route_generation_fixture f;
  f.options.charge_self = true;
  f.spawn();
  auto sink = f.start();
  f.run({sink});
  REQUIRE(f.money->settled.size() == 1);
  const auto& bill = f.money->settled.front();
  CHECK(bill.validator == f.options.address);
  REQUIRE(bill.workers.size() == 1);
  CHECK(bill.workers.front().credited_work == 45);
}

TEST_CASE("a free generation that leaves this wallet's nodes is charged from there on, or stays free") {
  const auto text = undisturbed();
  route_generation_fixture f;
  f.other_wallet = {3};
  f.spawn();
  int calls = 0;
  f.network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == f.address(1) && has_tokens(call) && ++calls == 5)
      f.network->down.insert(to);
    return !f.network->down.contains(to);
  };
  SUBCASE("charged") {
    auto sink = f.start();
    f.run({sink});
    check_whole(*sink, text);
    REQUIRE(f.money->settled.size() == 1);
    const auto& bill = f.money->settled.front();
    CHECK(bill.prompt_tokens == 0);
    CHECK(bill.completion_tokens == 6);
    uint64_t own = 0, others = 0;
    for (const auto& worker : bill.workers)
      (worker.address.empty() ? others : own) += worker.counted_work;
    CHECK(own == 6); // the head of another node of this wallet is not told apart from other wallets
    CHECK(others == 12);
    CHECK(sink->result->cost == neuro_amount{600});
  }
  SUBCASE("too poor") {
    f.money->poor = true;
    auto sink = f.start();
    f.run({sink});
    check_whole(*sink, text);
    CHECK(f.money->settled.empty());
    CHECK(sink->result->cost == neuro_amount{});
  }
  SUBCASE("before the first token all of it is charged") {
    calls = 4;
    auto sink = f.start();
    f.run({sink});
    check_whole(*sink, text);
    REQUIRE(f.money->settled.size() == 1);
    CHECK(f.money->settled.front().prompt_tokens == 6);
    CHECK(f.money->settled.front().completion_tokens == tokens_asked);
  }
  CHECK(f.money->open.empty());
}

TEST_CASE("whatever happens to the nodes, every generation ends, and no text is another one") {
  const char* set = std::getenv("NEUROSHARD_TEST_SEED");
  const uint64_t first = set ? std::strtoull(set, nullptr, 10) : 1;
  std::vector<std::string> texts;
  for (uint64_t g = 0; g < 4; ++g)
    texts.push_back(undisturbed(std::string(1 + g, static_cast<char>('a' + g)), g));
  for (uint64_t seed = first; seed < first + (set ? 1 : 25); ++seed) {
    INFO("NEUROSHARD_TEST_SEED=" << seed);
    std::mt19937_64 random{seed};
    route_generation_fixture f;
    f.spawn();
    f.network->on_forward = [&](const std::string& to, routed_forward&) {
      if (random() % 40 == 0)
        (random() % 2 == 0 ? f.network->down : f.network->stopped).insert(to);
      return !f.network->down.contains(to) && random() % 60 != 0;
    };
    f.network->on_answer = [&](const std::string&, routed_forward_reply&) { return random() % 60 != 0; };
    std::vector<std::shared_ptr<recording_sink>> sinks;
    for (uint64_t g = 0; g < 4; ++g)
      sinks.push_back(f.start(std::string(1 + g, static_cast<char>('a' + g)), tokens_asked, g));
    const auto done = [&] {
      return std::all_of(sinks.begin(), sinks.end(),
                         [](const auto& sink) { return sink->result.has_value(); });
    };
    for (int tick = 0; tick < 1'300 && !done(); ++tick) {
      f.sched.run();
      f.advance(100'000);
      if (random() % 20 == 0) {
        f.network->down.clear();
        f.network->stopped.clear();
      }
    }
    for (size_t g = 0; g < sinks.size(); ++g) {
      REQUIRE(sinks[g]->result);
      const auto& result = *sinks[g]->result;
      INFO((result.failure ? problem_of(*result.failure).message : std::string()));
      auto said = result.text;
      while (result.failure && said.ends_with("\xef\xbf\xbd")) // a character was cut short
        said.resize(said.size() - 3);
      CHECK(texts[g].starts_with(said));
      CHECK(sinks[g]->text() == result.text);
      if (result.failure)
        CHECK((code_of(*result.failure) == errc::no_route || code_of(*result.failure) == errc::timeout));
      else
        CHECK(result.text == texts[g]);
    }
  }
}

TEST_CASE("a hop is given the time it takes, within bounds, and spoken of once a second") {
  hop_watch watch;
  model_route route;
  route.hops.push_back({true, "own", "", 0, 1});
  route.hops.push_back({false, "a", "", 1, 2, {}, 900});
  route.hops.push_back({false, "b", "", 2, 3, {}, 60'000});
  CHECK(watch.budget_us(route.hops[0], request_class::decode, 1) == 400'000);
  CHECK(watch.budget_us(route.hops[1], request_class::decode, 1) == 900'000);
  CHECK(watch.budget_us(route.hops[2], request_class::decode, 1) == 5'000'000);
  CHECK(watch.budget_us(route.hops[1], request_class::prefill, 100) == 30'000'000);
  const auto reports = [](uint64_t own, uint64_t a, uint64_t b) {
    std::vector<hop_report> all(3);
    all[0].share.compute_us = own;
    all[1].share.compute_us = a;
    all[2].share.queue_us = b;
    return all;
  };
  auto told =
      watch.answered(route, reports(10'000, 20'000, 30'000), request_class::decode, 100'000, 1, 5'000);
  REQUIRE(told.size() == 2);
  CHECK(told[0].node_id == "a");
  CHECK(told[0].latency_us == 40'000); // its own 20 ms, and half of what the network took
  CHECK(told[1].latency_us == 50'000);
  CHECK(watch.budget_us(route.hops[0], request_class::decode, 1) == 200'000);
  CHECK(watch.answered(route, reports(0, 0, 0), request_class::decode, 1, 1, 1'004'000).empty());
  CHECK(watch.answered(route, {}, request_class::decode, 1, 1, 1'006'000).size() == 2);
  // What a node claims of itself is never more than there was.
  told = watch.answered(route, reports(0, ~uint64_t{0}, 1), request_class::prefill, 1'000'000, 100, 5'000);
  CHECK(told[0].latency_us == 1'000'000);
  CHECK(watch.budget_us(route.hops[1], request_class::prefill, 100) == 4'000'000);
  CHECK(watch.budget_us(route.hops[1], request_class::prefill, 1) == 2'000'000);
  CHECK(watch.budget_us(route.hops[1], request_class::prefill, 512 * 32) == 30'000'000);
}

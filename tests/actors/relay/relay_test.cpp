#include "tests/actors/layer_worker/worker_fixture.hpp"
#include "tests/support/scripted_worker.hpp"
#include "tests/support/work_network.hpp"

#include <cstring>

namespace neuroshard::test {

namespace {

/// The tiny model on one to three nodes: a worker and a relay each, of the same seed.
struct route_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_peer_manager,
                    caf::id_block::neuroshard_peer_link, caf::id_block::neuroshard_relay,
                    caf::id_block::neuroshard_work_link> {
  struct range {
    uint32_t begin, end;
    bool embed, head;
  };
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  work_network_ptr network = std::make_shared<work_network>();
  std::vector<range> ranges;
  std::vector<layer_worker_actor> workers;
  std::vector<relay_actor> relays;
  std::string architecture = model::architecture_id(tiny_architecture());

  explicit route_fixture(std::vector<range> held) : ranges(std::move(held)) {
    auto directory = keep(sys.spawn(network_directory, network));
    auto all = std::make_shared<peer_list>();
    for (size_t i = 0; i < ranges.size(); ++i) {
      const auto& r = ranges[i];
      all->push_back(work_network::node(i, r.begin, r.end, r.embed, r.head));
      const auto shape = tiny_architecture();
      auto how = tiny_options(shape);
      how.layer_begin = r.begin;
      how.layer_end = r.end;
      how.embed = r.embed;
      how.head = r.head;
      layer_worker_options options;
      options.architecture_id = architecture;
      options.seed = 7;
      options.valid_vocab = 266;
      options.optimizer = {1e-2, 10, 1000};
      options.detached_hashing = false;
      workers.push_back(
          keep(sys.spawn(layer_worker, hand_over(tiny_stage(shape, how)), options, time_source_ptr{clock})));
      auto link = keep(sys.spawn(network_work_link, network, work_network::id_of(i)));
      relays.push_back(keep(sys.spawn(relay, relay_options{work_network::id_of(i), 256},
                                      relay_parts{workers.back(), directory, link, time_source_ptr{clock}})));
      network->relays[work_network::address_of(i)] = relays.back();
    }
    network->peers = all;
    for (auto& worker : workers)
      REQUIRE(ask<serving_info>(*this, worker, refresh_serving{0, 0}));
  }

  /// The hops behind node 0, or those before the last, descending.
  std::vector<work_hop> hops(bool back = false) const {
    std::vector<work_hop> route;
    for (size_t i = 0; i < ranges.size(); ++i)
      route.push_back({work_network::id_of(i), "", ranges[i].begin, ranges[i].end, {}});
    if (back)
      std::reverse(route.begin(), route.end());
    route.erase(route.begin());
    return route;
  }
  forward_request forward(forward_mode mode, size_t node = 0) const {
    forward_request r;
    r.header.request_id = "r";
    r.header.session_id = "trainer";
    r.header.architecture_id = architecture;
    r.mode = mode;
    r.layer_begin = ranges[node].begin;
    r.layer_end = ranges[node].end;
    return r;
  }
  forward_request train(uint32_t microbatch, bool last) const {
    auto r = forward(forward_mode::train);
    std::vector<int32_t> ids, labels;
    for (int i = 0; i < 16; ++i) {
      ids.push_back(i == 0 || i == 8 ? 1 : 20 + (i * 7 + static_cast<int>(microbatch) * 3) % 100);
      labels.push_back(20 + (i * 5 + static_cast<int>(microbatch)) % 100);
    }
    r.token_ids = integers(ids, 2, 8);
    r.labels = integers(labels, 2, 8);
    r.step = 1;
    r.microbatch_id = microbatch;
    r.last_microbatch = last;
    r.loss_scale = 0.5F;
    r.apply_head = true;
    r.omit_tensors = true;
    return r;
  }
  void bind() {
    for (size_t i = 0; i < relays.size(); ++i) {
      routed_forward call{forward(forward_mode::bind, i), {}, {}};
      call.from.node_id = i == 0 ? "" : work_network::id_of(0);
      REQUIRE(ask<routed_forward_reply>(*this, relays[i], call));
    }
  }
  answer<routed_backward_reply> gradient(uint32_t microbatch) {
    routed_backward call;
    call.work.header.session_id = "trainer";
    call.work.header.architecture_id = architecture;
    call.work.layer_begin = ranges.back().begin;
    call.work.layer_end = ranges.back().end;
    call.work.step = 1;
    call.work.microbatch_id = microbatch;
    call.route = hops(true);
    return ask<routed_backward_reply>(*this, relays.back(), call);
  }
  /// Two micro-batches through the route and back: their losses, and each node's share of the gradient.
  std::vector<double> step(std::vector<hop_report>* reports = nullptr) {
    bind();
    std::vector<double> losses;
    for (uint32_t m = 0; m < 2; ++m) {
      auto reply = ask<routed_forward_reply>(*this, relays[0], routed_forward{train(m, m == 1), hops(), {}});
      INFO(problem_of(reply.refused).message);
      REQUIRE(reply);
      losses.push_back(reply->work.loss);
      if (reports)
        *reports = reply->hops;
      if (ranges.size() > 1) {
        auto back = gradient(m);
        INFO(problem_of(back.refused).message);
        REQUIRE(back);
        REQUIRE(back->hops.size() == ranges.size());
        if (reports)
          reports->assign(back->hops.rbegin(), back->hops.rend());
      }
    }
    return losses;
  }
  std::vector<float> read(size_t node, const std::string& name) {
    auto view = ask<snapshot_opened>(*this, workers[node], open_snapshot{false});
    REQUIRE(view);
    auto tensor = ask<tensor_handle>(*this, workers[node], read_snapshot{view->snapshot_id, name});
    REQUIRE(tensor);
    (void)ask<caf::unit_t>(*this, workers[node], close_snapshot{view->snapshot_id});
    const auto* first = tensor->view.as<const float>();
    return {first, first + tensor->view.elements()};
  }
  routed_forward prompt(std::vector<std::string> sessions, std::vector<uint32_t> at, size_t tokens) const {
    routed_forward call{forward(forward_mode::prefill), hops(), {}};
    std::vector<int32_t> ids;
    for (size_t i = 0; i < sessions.size(); ++i) {
      for (size_t t = 0; t < tokens; ++t)
        ids.push_back(static_cast<int32_t>(20 + (i * 13 + t * 5) % 200));
      call.work.rows.push_back({sessions[i], at[i], worker_fixture::greedy(), "inf", false});
    }
    call.work.token_ids = integers(ids, static_cast<int64_t>(sessions.size()), static_cast<int64_t>(tokens));
    call.work.apply_head = true;
    return call;
  }
};

const std::vector<route_fixture::range> alone = {{0, 2, true, true}};
const std::vector<route_fixture::range> halves = {{0, 1, true, false}, {1, 2, false, true}};
const std::vector<route_fixture::range> thirds = {
    {0, 1, true, false}, {1, 2, false, false}, {2, 2, false, true}};

} // namespace

TEST_CASE("losses and gradients through a route are bit for bit those of one node") {
  route_fixture one(alone);
  std::vector<hop_report> own;
  const auto expected = one.step(&own);
  REQUIRE(own.size() == 1);
  for (const auto& split : {halves, thirds}) {
    route_fixture many(split);
    std::vector<hop_report> reports;
    CHECK(many.step(&reports) == expected);
    double norm_sq = 0;
    REQUIRE(reports.size() == split.size());
    for (const auto& hop : reports) {
      CHECK(hop.share.ready);
      norm_sq += hop.share.grad_norm_sq;
    }
    // The same terms, added in another order.
    CHECK(norm_sq == doctest::Approx(own[0].share.grad_norm_sq).epsilon(1e-12));
  }
}

TEST_CASE("the weights of a stage change only with COMMIT, and then on every stage") {
  route_fixture many(halves);
  many.step();
  const auto before = many.read(1, "layers.1.attn_norm.weight");
  for (size_t i = 0; i < 2; ++i) {
    routed_backward call;
    call.work.header.session_id = "trainer";
    call.work.action = backward_action::commit;
    call.work.step = 1;
    auto reply = ask<routed_backward_reply>(many, many.relays[i], call);
    REQUIRE(reply);
    CHECK(reply->work.inner_steps == 1);
  }
  CHECK(many.read(1, "layers.1.attn_norm.weight") != before);
}

TEST_CASE("tokens drawn at the end of a route are those of one node") {
  route_fixture one(alone), many(thirds);
  auto expected = ask<routed_forward_reply>(one, one.relays[0], one.prompt({"a", "b"}, {0, 0}, 5));
  auto reply = ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a", "b"}, {0, 0}, 5));
  REQUIRE(expected);
  REQUIRE(reply);
  CHECK(reply->work.sampled == expected->work.sampled);
  CHECK(reply->work.logprobs == expected->work.logprobs);
  CHECK(reply->hops.size() == 3);
  CHECK(reply->work.rows.size() == 2);
  CHECK(reply->work.rows[0].cache_length == 5);
}

TEST_CASE("a row that fails at a hop disturbs no other row") {
  route_fixture one(alone), many(thirds);
  // The middle node loses the session of one row.
  REQUIRE(ask<routed_forward_reply>(one, one.relays[0], one.prompt({"a", "b"}, {0, 0}, 5)));
  REQUIRE(ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a", "b"}, {0, 0}, 5)));
  auto close = many.forward(forward_mode::decode, 1);
  close.rows.push_back({"a", 0, std::nullopt, "inf", true});
  REQUIRE(ask<forward_reply>(many, many.workers[1], close));
  const auto next = [](route_fixture& f) {
    auto call = f.prompt({"a", "b"}, {5, 5}, 1);
    call.work.mode = forward_mode::decode;
    return ask<routed_forward_reply>(f, f.relays[0], call);
  };
  const auto expected = next(one);
  const auto reply = next(many);
  REQUIRE(expected);
  REQUIRE(reply);
  REQUIRE(reply->work.rows.size() == 2);
  CHECK(reply->work.rows[0].status == row_status::unknown_session);
  CHECK(reply->work.rows[0].failed_node == work_network::id_of(1));
  CHECK(reply->work.sampled[0] == -1);
  CHECK(reply->work.rows[1].status == row_status::ok);
  CHECK(reply->work.sampled[1] == expected->work.sampled[1]);
}

TEST_CASE("where every row has failed at a hop, the others are not asked and the row says where") {
  route_fixture many(thirds);
  REQUIRE(ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a"}, {0}, 5)));
  auto close = many.forward(forward_mode::decode, 1);
  close.rows.push_back({"a", 0, std::nullopt, "inf", true});
  REQUIRE(ask<forward_reply>(many, many.workers[1], close));
  auto call = many.prompt({"a"}, {5}, 1);
  call.work.mode = forward_mode::decode;
  const auto reply = ask<routed_forward_reply>(many, many.relays[0], call);
  INFO(problem_of(reply.refused).message);
  REQUIRE(reply);
  CHECK(reply->hops.size() == 2);
  REQUIRE(reply->work.rows.size() == 1);
  CHECK(reply->work.rows[0].status == row_status::unknown_session);
  CHECK(reply->work.rows[0].failed_node == work_network::id_of(1));
  CHECK(reply->work.sampled == std::vector<int32_t>{-1});
}

TEST_CASE("closing rows pass every hop, also one that does not know the session") {
  route_fixture many(thirds);
  REQUIRE(ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a"}, {0}, 5)));
  auto close = many.forward(forward_mode::decode, 1);
  close.rows.push_back({"a", 0, std::nullopt, "inf", true});
  REQUIRE(ask<forward_reply>(many, many.workers[1], close));
  routed_forward call{many.forward(forward_mode::decode), many.hops(), {}};
  call.work.rows = close.rows;
  REQUIRE(ask<routed_forward_reply>(many, many.relays[0], call));
  auto status = ask<actor_status>(many, many.workers[2], status_atom_v);
  REQUIRE(status);
  bool seen = false;
  for (const auto& [key, value] : status->values)
    if (key == "sessions") {
      seen = true;
      CHECK(value == "0");
    }
  CHECK(seen);
}

TEST_CASE("a failure names the hop where it happened and keeps its code") {
  route_fixture many(thirds);
  const auto failed_hop = [](const caf::error& why) {
    for (const auto& [key, value] : problem_of(why).details)
      if (key == "failed_hop")
        return std::get<std::string>(value);
    return std::string();
  };
  SUBCASE("one that cannot be reached") {
    many.network->down.insert(work_network::address_of(2));
    auto reply = ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a"}, {0}, 5));
    REQUIRE_FALSE(reply);
    CHECK(reply.code() == errc::unavailable);
    CHECK(failed_hop(reply.refused) == work_network::id_of(2));
  }
  SUBCASE("one that nobody knows") {
    auto call = many.prompt({"a"}, {0}, 5);
    call.route[0].node_id = std::string(32, 'f');
    auto reply = ask<routed_forward_reply>(many, many.relays[0], call);
    REQUIRE_FALSE(reply);
    CHECK(reply.code() == errc::unavailable);
    CHECK(failed_hop(reply.refused) == std::string(32, 'f'));
  }
  SUBCASE("one that refuses") {
    auto call = many.prompt({"a"}, {0}, 5);
    call.route[1].layer_begin = 0;
    auto reply = ask<routed_forward_reply>(many, many.relays[0], call);
    REQUIRE_FALSE(reply);
    CHECK(reply.code() == errc::not_found);
    CHECK(failed_hop(reply.refused) == work_network::id_of(2));
  }
  SUBCASE("one that answers less than was asked") {
    many.network->on_forward = [&](const std::string& address, routed_forward& call) {
      if (address == work_network::address_of(1)) {
        call.route.clear();
        call.work.apply_head = false;
      }
      return true;
    };
    auto reply = ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a"}, {0}, 5));
    REQUIRE_FALSE(reply);
    CHECK(reply.code() == errc::unavailable);
    CHECK(failed_hop(reply.refused) == work_network::id_of(1));
  }
}

TEST_CASE("only a node that holds the embedding binds a stage, and without a route") {
  route_fixture many(halves);
  routed_forward call{many.forward(forward_mode::bind, 0), {}, {}};
  call.from.node_id = work_network::id_of(1);
  auto reply = ask<routed_forward_reply>(many, many.relays[0], call);
  REQUIRE_FALSE(reply);
  CHECK(reply.code() == errc::forbidden);
  CHECK(reply.reason() == "not_a_driver");
  routed_forward routed{many.forward(forward_mode::bind, 0), many.hops(), {}};
  reply = ask<routed_forward_reply>(many, many.relays[0], routed);
  REQUIRE_FALSE(reply);
  CHECK(reply.code() == errc::invalid_request);
}

TEST_CASE("the next hop gets the time that is left less 20 ms for each hop of the route") {
  route_fixture many(thirds);
  std::vector<int64_t> deadlines;
  many.network->on_forward = [&](const std::string&, routed_forward& call) {
    deadlines.push_back(call.work.header.deadline_steady_us);
    return true;
  };
  auto call = many.prompt({"a"}, {0}, 5);
  call.from.node_id = work_network::id_of(2);
  call.work.header.deadline_steady_us = many.clock->steady_us() + 30'000;
  auto late = ask<routed_forward_reply>(many, many.relays[0], call);
  REQUIRE_FALSE(late);
  CHECK(late.code() == errc::timeout);
  CHECK(many.network->calls.empty());
  call.work.header.deadline_steady_us = many.clock->steady_us() + 1'000'000;
  REQUIRE(ask<routed_forward_reply>(many, many.relays[0], call));
}

TEST_CASE("the auxiliary losses of the hops add up, and the trace id goes along") {
  route_fixture many(thirds);
  double loss = 1;
  std::vector<std::string> traces;
  for (size_t i = 0; i < 3; ++i, loss *= 2) {
    auto script = std::make_shared<worker_script>();
    script->forward = [&traces, loss, i](const forward_request& r) -> caf::result<forward_reply> {
      traces.push_back(r.header.trace_id);
      forward_reply reply;
      reply.aux_loss = loss;
      if (i < 2)
        reply.hidden = integers({1, 2}, 1, 2); // what it says is not looked at here
      return reply;
    };
    const auto id = work_network::id_of(i);
    auto link = many.keep(many.sys.spawn(network_work_link, many.network, id));
    auto known = many.keep(many.sys.spawn(network_directory, many.network));
    many.relays[i] = many.keep(many.sys.spawn(
        relay, relay_options{id, 256},
        relay_parts{many.keep(many.sys.spawn(scripted_worker, script)), known, link, many.clock}));
    many.network->relays[work_network::address_of(i)] = many.relays[i];
  }
  auto call = many.train(0, true);
  call.header.trace_id = "a-trace";
  const auto reply = ask<routed_forward_reply>(many, many.relays[0], routed_forward{call, many.hops(), {}});
  INFO(problem_of(reply.refused).message);
  REQUIRE(reply);
  CHECK(reply->work.aux_loss == 7);
  CHECK(traces == std::vector<std::string>(3, "a-trace"));
}

TEST_CASE("a relay takes a bounded number of calls and none while it stops") {
  route_fixture many(halves);
  auto narrow = many.keep(many.sys.spawn(relay, relay_options{work_network::id_of(0), 0},
                                         relay_parts{many.workers[0], {}, {}, many.clock}));
  auto reply = ask<routed_forward_reply>(many, narrow, many.prompt({"a"}, {0}, 5));
  REQUIRE_FALSE(reply);
  CHECK(reply.code() == errc::overloaded);
  REQUIRE(ask<caf::unit_t>(many, many.relays[0], drain_atom_v));
  reply = ask<routed_forward_reply>(many, many.relays[0], many.prompt({"a"}, {0}, 5));
  REQUIRE_FALSE(reply);
  CHECK(reply.code() == errc::draining);
}

} // namespace neuroshard::test

#include "tests/actors/gradient_exchanger/exchanger_fixture.hpp"

#include <limits>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

gradient_exchanger_options in_small_parts() {
  gradient_exchanger_options how;
  how.part_bytes = 8'192;
  return how;
}

size_t published_by(const exchanger_fixture& f, const std::string& what) {
  return static_cast<size_t>(std::count_if(f.network->published_log.begin(), f.network->published_log.end(),
                                           [&](const std::string& one) { return one.ends_with(what); }));
}

} // namespace

TEST_CASE("a node alone ends a round at once and keeps its inner weights") {
  exchanger_fixture f(1);
  f.begin(0, 0);
  f.run_ms(32'000); // by then cohorts are fixed
  f.train(0, 1);
  const auto before = f.weights(0);
  auto over = f.finish_later(0, 1, true);
  f.sched.run();
  auto got = f.got(0, over);
  REQUIRE(got);
  CHECK(got->how == round_end_kind::alone);
  CHECK_FALSE(got->weights_changed);
  CHECK((f.weights(0) == before));
  CHECK(f.network->calls == 0);
}

TEST_CASE("members end every round with the same weights, hashes and velocity, whatever their number") {
  for (const size_t count : {2, 3, 5}) {
    CAPTURE(count);
    exchanger_fixture f(count, in_small_parts());
    std::vector<size_t> all;
    for (size_t i = 0; i < count; ++i)
      all.push_back(i);
    for (uint64_t round = 1; round <= 3; ++round) {
      f.begin_all(round - 1);
      for (auto& got : f.finish_all(round, all, 8'000)) {
        REQUIRE(got);
        CHECK(got->how == round_end_kind::updated);
        CHECK(got->members == count);
        CHECK(got->weights_changed);
        CHECK(got->tokens == count * 5'120);
      }
      f.check_equal(all);
      REQUIRE(f.announced(0).size() == 4);
      CHECK(f.announced(0)[0].velocity_hash.has_value());
      for (const size_t i : all)
        CHECK(f.value(i, "refused") == "0");
    }
  }
}

TEST_CASE("every encoding and every strategy ends with equal weights, step after step") {
  struct setting {
    delta_encoding compression;
    aggregation_strategy strategy;
  };
  for (const auto& [compression, strategy] :
       {setting{delta_encoding::f32, aggregation_strategy::median},
        setting{delta_encoding::dense_i4, aggregation_strategy::multi_krum},
        setting{delta_encoding::dense_i4, aggregation_strategy::krum},
        setting{delta_encoding::topk_i8, aggregation_strategy::mean},
        setting{delta_encoding::dense_i8, aggregation_strategy::geometric_median}}) {
    CAPTURE(static_cast<int>(compression));
    CAPTURE(std::string(to_string(strategy)));
    gradient_exchanger_options how;
    how.compression = compression;
    how.aggregation.strategy = strategy;
    exchanger_fixture f(4, how);
    for (uint64_t round = 1; round <= 3; ++round) {
      f.begin_all(round - 1);
      for (auto& got : f.finish_all(round, {0, 1, 2, 3}, 8'000)) {
        REQUIRE(got);
        CHECK(got->members == 4);
      }
      f.check_equal({0, 1, 2, 3});
      CHECK(f.value(0, "refused") == "0");
    }
  }
}

TEST_CASE("nodes that hold parts of the model exchange the units they share") {
  exchanger_fixture f(0);
  f.join({0, 1, true, false});
  f.join({1, 2, false, true});
  f.join({0, 2, true, true});
  f.join({0, 1, true, false});
  for (uint64_t round = 1; round <= 2; ++round) {
    f.begin_all(round - 1);
    const auto ended = f.finish_all(round, {0, 1, 2, 3}, 8'000);
    for (const auto& got : ended)
      REQUIRE(got);
    CHECK(ended[0]->members == 3); // embed and layer.0
    CHECK(ended[1]->members == 2); // layer.1 and head
    CHECK(ended[2]->members == 3);
    const auto whole = f.weights(2);
    for (size_t i : {0, 1, 3})
      for (const auto& [name, values] : f.weights(i))
        CHECK((whole.at(name) == values));
  }
}

TEST_CASE("a unit that nobody else holds keeps its inner weights while others are stepped") {
  exchanger_fixture f(0);
  f.join({0, 1, true, false});
  f.join();
  f.begin_all(0);
  for (size_t i : {0, 1})
    f.train(i, 1);
  const auto inner = f.weights(1);
  for (const auto& got : f.finish_all(1, {0, 1}, 8'000, false)) {
    REQUIRE(got);
    CHECK(got->how == round_end_kind::updated);
  }
  const auto after = f.weights(1);
  for (const auto& [name, values] : f.weights(0))
    CHECK((after.at(name) == values));
  for (const std::string name : {"norm.weight", "head.weight", "layers.1.ffn.up.weight"})
    CHECK((after.at(name) == inner.at(name)));
  f.begin(1, 1);
  CHECK(f.announced(1).size() == 4); // the unit of its own too
  CHECK_FALSE(f.announced(1).back().velocity_hash.has_value());
}

TEST_CASE("every contribution travels once between two members") {
  exchanger_fixture f(4);
  f.begin_all(0);
  f.finish_all(1, {0, 1, 2, 3});
  CHECK(f.network->calls <= 4 * 4 * 3);
  CHECK(f.network->bytes < 4 * 3 * 45'000); // about a byte for each of 36,000 parameters, author and reader
}

TEST_CASE("an outer step leaves Adam's moments and its count of steps alone") {
  exchanger_fixture f(2);
  auto moments = f.weights(0, true);
  draws any(3);
  for (auto& [name, values] : moments)
    if (name.starts_with("adam.")) {
      for (auto& value : values)
        value = std::fabs(any.normal(1e-3));
      tensor_handle handle;
      auto opened = ask<snapshot_opened>(f, f.nodes[0]->worker, open_snapshot{true});
      REQUIRE(opened);
      REQUIRE(ask<caf::unit_t>(f, f.nodes[0]->worker, close_snapshot{opened->snapshot_id}));
      for (const auto& entry : opened->tensors)
        if (entry.name == name)
          REQUIRE(
              ask<caf::unit_t>(f, f.nodes[0]->worker, write_tensor{name, handle_of(entry.shape, values)}));
    }
  REQUIRE(ask<caf::unit_t>(f, f.nodes[0]->worker, finish_load{77}));
  f.begin_all(0);
  f.finish_all(1, {0, 1});
  f.check_equal({0, 1});
  uint64_t t = 0;
  const auto after = f.weights(0, true, &t);
  CHECK(t == 77);
  for (const auto& [name, values] : moments)
    if (name.starts_with("adam."))
      CHECK((after.at(name) == values));
}

TEST_CASE("with eta 1, no momentum and no compression a single contribution gives w_H to everybody") {
  gradient_exchanger_options how;
  how.compression = delta_encoding::f32;
  how.outer = {1.0, 0.0};
  exchanger_fixture f(3, how);
  for (size_t i : {1, 2})
    f.network->records[f.nodes[i]->id()].node.training = false;
  f.begin_all(0);
  const auto w0 = f.weights(0);
  f.train(0, 1);
  const auto w_h = f.weights(0);
  auto a = f.finish_later(0, 1, true);
  auto b = f.finish_later(1, 1, false, 0);
  auto c = f.finish_later(2, 1, false, 0);
  f.run_ms(7'000);
  for (auto got : {f.got(0, a), f.got(1, b), f.got(2, c)}) {
    REQUIRE(got);
    CHECK(got->how == round_end_kind::updated);
    CHECK(got->members == 1);
  }
  f.check_equal({0, 1, 2});
  for (const auto& [name, values] : f.weights(1))
    for (size_t i = 0; i < values.size();
         ++i) // to one rounding of the larger of w0, w_H and their difference
      REQUIRE(std::fabs(values[i] - w_h.at(name)[i]) <=
              std::numeric_limits<float>::epsilon() *
                  std::max(std::fabs(w0.at(name)[i]), std::fabs(w_h.at(name)[i])));
  CHECK_FALSE(f.announced(1)[0].velocity_hash.has_value());
}

TEST_CASE("a round without any contribution gives everybody w0 again") {
  exchanger_fixture f(2);
  for (size_t i : {0, 1})
    f.network->records[f.nodes[i]->id()].node.training = false;
  const auto w0 = f.weights(0);
  f.begin_all(0);
  auto a = f.finish_later(0, 1, true, 0);
  auto b = f.finish_later(1, 1, false, 0);
  f.run_ms(3'000);
  for (auto got : {f.got(0, a), f.got(1, b)}) {
    REQUIRE(got);
    CHECK(got->how == round_end_kind::updated);
  }
  CHECK((f.weights(0) == w0));
  f.check_equal({0, 1});
}

TEST_CASE("who is not heard within 60 s is done without") {
  exchanger_fixture f(3);
  f.begin_all(0);
  f.die(2);
  auto got = f.finish_all(1, {0, 1}, 61'000);
  for (auto& one : got) {
    REQUIRE(one);
    CHECK(one->members == 2);
  }
  f.check_equal({0, 1});
}

TEST_CASE("a contribution counts when its author dies after it was sent") {
  exchanger_fixture f(3);
  f.begin_all(0);
  for (size_t i : {0, 1, 2})
    f.train(i, 1);
  (void)f.finish_later(2, 1, true);
  f.run_ms(6'000); // it has called everybody
  f.die(2);
  auto got = f.finish_all(1, {0, 1}, 61'000, false);
  for (auto& one : got) {
    REQUIRE(one);
    CHECK(one->members == 3);
  }
  f.check_equal({0, 1});
}

TEST_CASE("the next member collects where the collector is gone") {
  exchanger_fixture f(4, in_small_parts());
  f.begin_all(0);
  std::vector<std::string> ids;
  for (const auto& one : f.nodes)
    ids.push_back(one->id());
  const auto order = collector_order(1, ids);
  std::vector<size_t> left;
  size_t gone = 0;
  for (size_t i = 0; i < 4; ++i) {
    if (f.nodes[i]->id() == order[0])
      gone = i;
    else
      left.push_back(i);
  }
  SUBCASE("before it sent anything") {
    f.die(gone);
  }
  SUBCASE("with everybody's contribution") {
    f.network->on_publish = [&](const std::string& from, const std::string&, publish_kind kind) {
      return kind != publish_kind::delta_set || from != order[0];
    };
    f.train(gone, 1);
    (void)f.finish_later(gone, 1);
    f.sched.run();
  }
  auto got = f.finish_all(1, left, 77'000);
  const bool died = f.network->down.contains(order[0]);
  for (auto& one : got) {
    REQUIRE(one);
    CHECK(one->how == round_end_kind::updated);
    CHECK(one->members == (died ? 3 : 4));
  }
  f.check_equal(left);
  CHECK(std::count(f.network->published_log.begin(), f.network->published_log.end(), order[1] + " set") == 4);
}

TEST_CASE("without a set of any collector the round is lost, for everybody alike") {
  exchanger_fixture f(3);
  f.network->on_publish = [](const std::string&, const std::string&, publish_kind kind) {
    return kind != publish_kind::delta_set;
  };
  f.begin_all(0);
  const auto w0 = f.weights(0);
  f.finish_all(1, {0, 1, 2}, 110'000);
  // Collectors know their own sets, so they differ; who is none has the weights of before.
  size_t same = 0;
  for (size_t i : {0, 1, 2})
    same += f.weights(i) == w0;
  CHECK(same == 0); // with three members each of them collects
}

TEST_CASE("lost, doubled and reordered parts change nothing") {
  exchanger_fixture f(4, in_small_parts());
  INFO("NEUROSHARD_TEST_SEED=", exchange_tests::seed());
  draws luck(77);
  f.network->on_call = [&](const std::string&, const std::string&, exchange_request&) {
    return luck.below(10) != 0;
  };
  f.network->on_answer = [&](const std::string&, const std::string&, exchange_reply&, bool) {
    return luck.below(10) != 0;
  };
  f.network->copies = [&] { return luck.below(3); };
  for (uint64_t round = 1; round <= 3; ++round) {
    f.begin_all(round - 1);
    for (auto& one : f.finish_all(round, {0, 1, 2, 3}, 90'000)) {
      REQUIRE(one);
      CHECK(one->how == round_end_kind::updated);
      CHECK(one->members >= 3);
    }
    f.check_equal({0, 1, 2, 3});
  }
}

TEST_CASE("a driver's RoundEnd ends the inner steps of the others") {
  exchanger_fixture f(3);
  f.begin_all(0);
  f.train(0, 1);
  auto first = f.finish_later(0, 1, true);
  f.run_ms(200);
  CHECK((*f.nodes[1]->ends == std::vector<uint64_t>{1}));
  CHECK((*f.nodes[2]->ends == std::vector<uint64_t>{1}));
  CHECK(f.nodes[0]->ends->empty());
  CHECK(published_by(f, " end") == 1);
  CHECK(*f.nodes[0]->exchanging);
  CHECK_FALSE(*f.nodes[1]->exchanging);
  for (auto& one : f.finish_all(1, {1, 2}, 8'000))
    CHECK(one);
  CHECK(f.got(0, first));
  CHECK(published_by(f, " end") == 1); // it was heard: node 1 does not say it again
  CHECK_FALSE(*f.nodes[0]->exchanging);
  f.check_equal({0, 1, 2});
}

TEST_CASE("a RoundEnd of few steps or of one who drives nothing is ignored") {
  exchanger_fixture f(2);
  f.begin_all(0);
  SUBCASE("too early") {
    (void)f.finish_later(0, 1, true, 9);
  }
  SUBCASE("no driver") {
    f.network->records[f.nodes[0]->id()].node.has_embedding = false;
    f.run_ms(2'000);
    f.network->on_call = [](const std::string&, const std::string&, exchange_request&) { return false; };
    (void)f.finish_later(0, 1, true);
  }
  f.sched.run();
  CHECK(f.nodes[1]->ends->empty());
}

TEST_CASE("who hears no RoundEnd ends its round when half of the others send contributions") {
  exchanger_fixture f(3);
  f.network->on_publish = [](const std::string&, const std::string&, publish_kind kind) {
    return kind != publish_kind::round_end;
  };
  f.begin_all(0);
  f.train(0, 1);
  auto first = f.finish_later(0, 1, true);
  f.run_ms(6'000);
  CHECK((*f.nodes[1]->ends == std::vector<uint64_t>{1}));
  CHECK((*f.nodes[2]->ends == std::vector<uint64_t>{1}));
  f.finish_all(1, {1, 2}, 8'000);
  CHECK(f.got(0, first));
  f.check_equal({0, 1, 2});
}

TEST_CASE("a round shorter than the way of records waits for them") {
  exchanger_fixture f(2);
  f.begin_all(0);
  f.finish_all(1, {0, 1}, 8'000);
  const auto at_0 = [&](size_t i) { // what others still see
    f.network->records[f.nodes[i]->id()].node.model_version = 0;
  };
  at_0(1);
  f.begin(0, 1);
  at_0(0);
  f.begin(1, 1);
  at_0(1);
  f.run_ms(1'000);
  f.train(0, 2);
  f.train(1, 2);
  auto a = f.finish_later(0, 2, true);
  auto b = f.finish_later(1, 2);
  f.run_ms(3'000);
  CHECK(f.value(0, "phase") == "exchange"); // not alone
  for (size_t i : {0, 1})
    f.network->records[f.nodes[i]->id()].node.model_version = 1;
  f.run_ms(8'000);
  for (auto got : {f.got(0, a), f.got(1, b)}) {
    REQUIRE(got);
    CHECK(got->members == 2);
  }
  f.check_equal({0, 1});
}

TEST_CASE("who joins later in a round is no member and still ends with the same weights") {
  exchanger_fixture f(2);
  f.begin_all(0);
  f.run_ms(31'000);
  f.join();
  f.begin(2, 0);
  f.run_ms(1'000);
  auto got = f.finish_all(1, {0, 1, 2}, 10'000);
  for (auto& one : got)
    REQUIRE(one);
  CHECK(got[0]->members == 2);
  CHECK(f.value(0, "refused") == "0");
  f.check_equal({0, 1});
  if (got[2]->how == round_end_kind::updated)
    f.check_equal({0, 2});
  f.begin_all(1);
  for (auto& one : f.finish_all(2, {0, 1, 2}, 8'000)) {
    REQUIRE(one);
    CHECK(one->members == 3);
  }
  f.check_equal({0, 1, 2});
}

TEST_CASE("who is outer steps behind resyncs") {
  exchanger_fixture f(3);
  f.begin_all(0);
  f.network->down.insert(f.nodes[2]->id()); // asleep
  f.finish_all(1, {0, 1}, 61'000);
  f.network->down.clear();
  f.run_ms(20'000);
  CHECK((*f.nodes[2]->ends == std::vector<uint64_t>{1}));
  auto got = f.finish_all(1, {2}, 1'000);
  REQUIRE(got[0]);
  CHECK(got[0]->how == round_end_kind::resync);
}

TEST_CASE("a minority of other weights resyncs after 15 s") {
  exchanger_fixture f(3);
  f.begin_all(0);
  f.finish_all(1, {0, 1, 2}, 8'000);
  auto wrong = f.weights(2);
  wrong.begin()->second[0] += 1;
  f.set_weights(2, wrong);
  f.begin_all(1);
  f.run_ms(10'000);
  CHECK(f.nodes[2]->ends->size() == 1); // of round 1
  f.run_ms(8'000);
  CHECK((*f.nodes[2]->ends == std::vector<uint64_t>{1, 2}));
  CHECK(f.nodes[0]->ends->empty());
  auto got = f.finish_all(2, {2}, 1'000, false);
  REQUIRE(got[0]);
  CHECK(got[0]->how == round_end_kind::resync);
}

TEST_CASE("velocity, residuals and w0 come back from a checkpoint") {
  exchanger_fixture f(2);
  f.begin_all(0);
  f.finish_all(1, {0, 1});
  f.begin_all(1);
  auto kept = ask<outer_tensors>(f, f.nodes[1]->exchanger, read_outer_state{});
  REQUIRE(kept);
  std::map<std::string, size_t> prefixes;
  for (const auto& one : kept->tensors)
    ++prefixes[one.name.substr(0, one.name.find('/'))];
  const size_t tensors = f.weights(1).size();
  CHECK(prefixes["diloco.v"] == tensors);
  CHECK(prefixes["diloco.r"] == tensors);
  CHECK(prefixes["diloco.w0"] == tensors);
  for (size_t i : {0, 1})
    f.train(i, 2);
  // In the middle of the round: the worker holds other weights than w0.
  caf::anon_send_exit(f.nodes[1]->exchanger, caf::exit_reason::kill);
  f.start(1);
  REQUIRE(ask<caf::unit_t>(f, f.nodes[1]->exchanger, restore_outer_state{kept->tensors}));
  f.begin(1, 1);
  f.run_ms(2'000);
  CHECK((f.announced(0) == f.announced(1)));
  for (auto& one : f.finish_all(2, {0, 1}, 8'000, false)) {
    REQUIRE(one);
    CHECK(one->members == 2);
  }
  f.check_equal({0, 1});
  kept->tensors[0].name = "diloco.x/embed.weight";
  CHECK(ask<caf::unit_t>(f, f.nodes[1]->exchanger, restore_outer_state{kept->tensors}).code() ==
        errc::invalid_request);
}

TEST_CASE("a round that is not under way cannot be finished, and a stop ends the exchange") {
  exchanger_fixture f(2);
  CHECK(ask<round_outcome>(f, f.nodes[0]->exchanger, finish_round{1}).code() == errc::failed_precondition);
  f.begin_all(0);
  CHECK(ask<round_outcome>(f, f.nodes[0]->exchanger, finish_round{2}).code() == errc::failed_precondition);
  const auto before = f.weights(0);
  auto over = f.finish_later(0, 1, true);
  f.run_ms(1'000);
  REQUIRE(ask<caf::unit_t>(f, f.nodes[0]->exchanger, drain_atom_v));
  CHECK(f.got(0, over).code() == errc::draining);
  CHECK((f.weights(0) == before));
}

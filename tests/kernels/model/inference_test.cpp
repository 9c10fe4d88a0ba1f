#include "tests/kernels/model/stage_support.hpp"

#include <cmath>
#include <cstring>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

using std::chrono::seconds;

std::chrono::steady_clock::time_point at(int second) {
  return std::chrono::steady_clock::time_point{} + seconds(second);
}

double tolerance(dtype compute) {
  return compute == dtype::bf16 ? 2e-2 : 1e-4;
}

std::unique_ptr<stage> serving_stage(const kernels::device_ptr& device, dtype compute, uint64_t seed = 7) {
  const architecture a = tiny_shape();
  auto s = make_stage(device, a, whole_options(a, compute), seed);
  // A fresh model's logits are almost flat: larger weights make errors visible.
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (const unit& u : s->units())
    for (const parameter& p : u.parameters)
      if (p.shape.size() == 2) {
        std::vector<float> values(static_cast<size_t>(p.count));
        for (float& v : values)
          v = 0.1F * normal(random);
        REQUIRE(s->write(p.name, parameter_part::weight, 0, values).ok());
      }
  REQUIRE(s->refresh_weights().run().ok());
  REQUIRE(s->make_serving_copy(1, false).run().ok());
  return s;
}

infer_output must(sliced<kernels::result<infer_output>> work) {
  auto out = work.run();
  INFO(out.status().message());
  REQUIRE(out.ok());
  return std::move(*out);
}

/// Appends ids to one session; logits of the last.
std::vector<float> append(stage& s, const std::string& session, uint32_t position, std::vector<int32_t> ids,
                          bool prefill) {
  infer_input in;
  in.rows = {row_of(session, position, static_cast<int64_t>(ids.size()))};
  in.token_ids = std::move(ids);
  in.want = infer_result::logits;
  const infer_output out = must(s.infer(std::move(in), prefill));
  REQUIRE(out.rows[0].status == infer_status::ok);
  const auto* values = out.logits.view.as<const float>();
  return {values, values + s.shape().vocab_capacity};
}

std::vector<int32_t> slice_of(const std::vector<int32_t>& ids, size_t first, size_t count) {
  return {ids.begin() + static_cast<std::ptrdiff_t>(first),
          ids.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

} // namespace

TEST_CASE("decoding with the cache equals attention without it") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO((backend + (compute == dtype::bf16 ? " bf16" : " f32")));
      const auto s = serving_stage(open_device(backend), compute);
      std::mt19937_64 random(test_seed());
      const auto ids = random_ids(random, 40, 64);
      const auto first = append(*s, "x", 0, slice_of(ids, 0, 5), true);
      CHECK(logit_difference(first, logits_without_cache(*s, slice_of(ids, 0, 5))) < tolerance(compute));
      double worst = 0;
      for (size_t t = 5; t < 40; ++t) {
        const auto logits = append(*s, "x", static_cast<uint32_t>(t), {ids[t]}, false);
        worst = std::max(worst, logit_difference(logits, logits_without_cache(*s, slice_of(ids, 0, t + 1))));
      }
      MESSAGE(backend << " decode vs. whole sequence: " << worst);
      CHECK(worst < tolerance(compute));
      CHECK(*s->session_length("x") == 40);
    }
}

TEST_CASE("a prefill in chunks equals one in a piece, and a truncated cache one that never was longer") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO(backend);
      const auto s = serving_stage(open_device(backend), compute);
      std::mt19937_64 random(test_seed());
      const auto ids = random_ids(random, 32, 64);
      const auto whole = append(*s, "whole", 0, ids, true);
      append(*s, "parts", 0, slice_of(ids, 0, 7), true);
      append(*s, "parts", 7, slice_of(ids, 7, 16), true);
      const auto parts = append(*s, "parts", 23, slice_of(ids, 23, 9), true);
      CHECK(logit_difference(parts, whole) < tolerance(compute));

      append(*s, "cut", 0, random_ids(random, 30, 64), true);
      append(*s, "cut", 0, slice_of(ids, 0, 20), true); // from the start again
      append(*s, "cut", 20, random_ids(random, 10, 64), true);
      const auto cut = append(*s, "cut", 20, slice_of(ids, 20, 12), true); // below the held length: truncates
      CHECK(logit_difference(cut, whole) < tolerance(compute));
      // A decode truncates too: the last position again.
      const auto again = append(*s, "cut", 31, {ids[31]}, false);
      CHECK(logit_difference(again, whole) < tolerance(compute));
      CHECK(*s->session_length("cut") == 32);
    }
}

TEST_CASE("a batch of sessions gives each what it gets alone") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO(backend);
      const auto s = serving_stage(open_device(backend), compute);
      std::mt19937_64 random(test_seed());
      std::vector<std::vector<int32_t>> ids;
      std::vector<std::vector<float>> alone;
      infer_input together;
      for (int i = 0; i < 5; ++i) {
        const size_t length = 3 + 4 * static_cast<size_t>(i);
        ids.push_back(random_ids(random, length + 1, 64));
        const std::string name = "s" + std::to_string(i);
        append(*s, name, 0, slice_of(ids.back(), 0, length), true);
        alone.push_back(logits_without_cache(*s, ids.back()));
        together.rows.push_back(row_of(name, static_cast<uint32_t>(length), 1));
        together.token_ids.push_back(ids.back().back());
      }
      together.want = infer_result::logits;
      const infer_output out = must(s->infer(together, false));
      for (size_t i = 0; i < 5; ++i) {
        const float* row = out.logits.view.as<const float>() + i * 64;
        CHECK(logit_difference(std::span(row, 64), alone[i]) < tolerance(compute));
        CHECK(out.rows[i].cache_length == ids[i].size());
      }
      // Prefill of several sessions in one call.
      infer_input prefill;
      prefill.want = infer_result::logits;
      for (size_t i = 0; i < 3; ++i) {
        prefill.rows.push_back(row_of("p" + std::to_string(i), 0, static_cast<int64_t>(ids[i].size())));
        prefill.token_ids.insert(prefill.token_ids.end(), ids[i].begin(), ids[i].end());
      }
      const infer_output filled = must(s->infer(prefill, true));
      for (size_t i = 0; i < 3; ++i)
        CHECK(logit_difference(std::span(filled.logits.view.as<const float>() + i * 64, 64), alone[i]) <
              tolerance(compute));
    }
}

TEST_CASE("tokens are sampled on the device, alike for a repeated call") {
  for (const std::string& backend : backends()) {
    const auto s = serving_stage(open_device(backend), dtype::f32);
    const auto logits = append(*s, "a", 0, {5, 6, 7}, true);
    int32_t best = 2; // PAD, BOS and UNK are never drawn
    for (int32_t i = 4; i < 64; ++i)
      if (logits[static_cast<size_t>(i)] > logits[static_cast<size_t>(best)])
        best = i;
    infer_input in;
    in.rows = {row_of("a", 2, 1)};
    in.rows[0].sample.emplace();
    in.rows[0].sample->temperature = 0;
    in.token_ids = {7};
    in.want = infer_result::token;
    const infer_output greedy = must(s->infer(in, false));
    CHECK(greedy.rows[0].token == best);
    double sum = 0; // over what may be drawn
    for (size_t i = 0; i < 64; ++i)
      sum += i == 0 || i == 1 || i == 3 ? 0 : std::exp(double{logits[i]});
    CHECK(std::abs(greedy.rows[0].logprob - (double{logits[static_cast<size_t>(best)]} - std::log(sum))) <
          1e-3);
    in.rows[0].sample->temperature = 1;
    in.rows[0].sample->seed = 99;
    in.rows[0].sample->step = 4;
    const int32_t drawn = must(s->infer(in, false)).rows[0].token;
    CHECK(must(s->infer(in, false)).rows[0].token == drawn);
    in.rows[0].sample->valid_vocab = 5; // 2 and 4 remain
    for (uint64_t step = 0; step < 20; ++step) {
      in.rows[0].sample->step = step;
      const int32_t token = must(s->infer(in, false)).rows[0].token;
      CHECK((token == 2 || token == 4));
    }
  }
}

TEST_CASE("rows fail one by one, with the published status, and do not disturb the others") {
  const auto s = serving_stage(open_device("reference"), dtype::f32);
  append(*s, "good", 0, {1, 2, 3}, true);
  append(*s, "short", 0, {1, 2}, true);
  infer_input in;
  in.rows = {row_of("unknown", 3, 1), row_of("good", 3, 1), row_of("short", 3, 1), row_of("fresh", 0, 1)};
  in.token_ids = {9, 4, 9, 9};
  in.want = infer_result::logits;
  const infer_output out = must(s->infer(in, false));
  CHECK(out.rows[0].status == infer_status::unknown_session);
  CHECK(out.rows[1].status == infer_status::ok);
  CHECK(out.rows[2].status == infer_status::cache_mismatch);
  CHECK(out.rows[2].cache_length == 2);
  CHECK(out.rows[3].status == infer_status::unknown_session); // only a prefill creates
  const auto* logits = out.logits.view.as<const float>();
  CHECK(logit_difference(std::span(logits + 64, 64), logits_without_cache(*s, {1, 2, 3, 4})) < 1e-4);
  for (size_t i = 0; i < 64; ++i)
    CHECK(logits[i] == 0);
}

TEST_CASE("sessions are limited; the oldest idle one is evicted and says so; closing frees") {
  const architecture a = tiny_shape();
  const auto s = serving_stage(open_device("reference"), dtype::f32);
  CHECK(s->kv_blocks_total() == 40);
  const auto prefill = [&](const std::string& name, int64_t count, int second) {
    infer_input in;
    in.rows = {row_of(name, 0, count)};
    in.token_ids.assign(static_cast<size_t>(count), 5);
    in.now = at(second);
    return must(s->infer(std::move(in), true)).rows[0];
  };
  for (int i = 0; i < 9; ++i)
    CHECK(prefill("s" + std::to_string(i), 32, i + 1).status == infer_status::ok);
  CHECK(s->sessions() == 8);
  CHECK_FALSE(s->session_length("s0").has_value());
  infer_input next;
  next.rows = {row_of("s0", 32, 1)};
  next.token_ids = {4};
  next.now = at(20);
  CHECK(must(s->infer(next, false)).rows[0].status == infer_status::evicted);
  CHECK(s->expire(at(4)) == 2); // s1 and s2
  CHECK(s->sessions() == 6);
  CHECK(s->release("s3"));
  CHECK_FALSE(s->release("s3"));
  CHECK(s->kv_blocks_free() == 40 - 5 * 2);
  // A row that only closes, and one that closes after its step.
  infer_input closing;
  closing.rows = {row_of("s4", 0, 0), row_of("s5", 32, 1)};
  closing.rows[0].close = closing.rows[1].close = true;
  closing.token_ids = {4};
  closing.now = at(21);
  const infer_output closed = must(s->infer(closing, false));
  CHECK(closed.rows[1].cache_length == 33);
  CHECK(s->sessions() == 3);
  CHECK(s->kv_blocks_free() == 40 - 3 * 2);
  // More blocks than there are: a pool of one session.
  stage_options small = whole_options(a);
  small.kv_pool_bytes =
      kv_bytes_per_token(a, dtype::f32) * static_cast<uint64_t>(kernels::kv_block * a.num_layers) * 2;
  const auto cramped = make_stage(open_device("reference"), a, small);
  REQUIRE(cramped->make_serving_copy(1, false).run().ok());
  infer_input large;
  large.rows = {row_of("x", 0, 32)};
  large.token_ids.assign(32, 5);
  CHECK(must(cramped->infer(large, true)).rows[0].status == infer_status::ok);
  large.rows = {row_of("x", 32, 1)};
  large.token_ids = {5};
  const auto refused = must(cramped->infer(large, false)).rows[0];
  CHECK(refused.status == infer_status::no_memory);
  CHECK(*cramped->session_length("x") == 32);
}

TEST_CASE("a generation stays on the copy it began with, whatever is trained or copied since") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO(backend);
      const architecture a = tiny_shape();
      const auto device = open_device(backend);
      const auto s = serving_stage(device, compute);
      const auto still = serving_stage(device, compute);
      const uint64_t before = device->allocated();
      append(*s, "old", 0, {5, 6, 7}, true);
      append(*still, "old", 0, {5, 6, 7}, true);
      const serving_ptr old = s->session_weights("old");
      REQUIRE(s->forward_train(whole_batch(a, 2, 8, 1)).run().ok());
      REQUIRE(s->apply({.learning_rate = 0.05F}).run().ok());
      const auto made = s->make_serving_copy(2, false).run();
      REQUIRE(made.ok());
      CHECK((*made)->version() == 2);
      CHECK((*made)->id() == 2);
      CHECK(s->newest() == *made);
      CHECK(s->session_weights("old") == old);
      append(*s, "new", 0, {5, 6, 7}, true);
      // Both in one batch.
      infer_input in;
      in.rows = {row_of("old", 3, 1), row_of("new", 3, 1)};
      in.token_ids = {8, 8};
      in.want = infer_result::logits;
      const infer_output out = must(s->infer(in, false));
      const auto* logits = out.logits.view.as<const float>();
      const auto expected_old = append(*still, "old", 3, {8}, false);
      CHECK(logit_difference(std::span(logits, 64), expected_old) < 1e-5);
      CHECK(logit_difference(std::span(logits + 64, 64), logits_without_cache(*s, {5, 6, 7, 8})) <
            tolerance(compute));
      CHECK(logit_difference(std::span(logits + 64, 64), expected_old) > 1e-3);
      // Retired, the old one's memory goes with its last session.
      const uint64_t both = s->planned().serving;
      CHECK(both == old->bytes() + (*made)->bytes());
      CHECK(s->retire_copies_before(2) == 1);
      in.rows = {row_of("old", 4, 1)};
      in.token_ids = {8};
      CHECK(must(s->infer(in, false)).rows[0].status == infer_status::evicted);
      (void)before;
    }
}

TEST_CASE("old copies are freed with their last user") {
  const auto device = open_device("reference");
  const auto s = serving_stage(device, dtype::bf16);
  append(*s, "a", 0, {5, 6}, true);
  const uint64_t one = device->allocated();
  REQUIRE(s->make_serving_copy(2, false).run().ok());
  CHECK(device->allocated() == one + s->newest()->bytes());
  CHECK(s->release("a"));
  CHECK(device->allocated() == one);
  CHECK(s->planned().serving == s->newest()->bytes());
}

TEST_CASE(
    "the model hash of a serving copy covers the weights in its own type and can be taken on any thread") {
  for (dtype compute : {dtype::f32, dtype::bf16}) {
    const architecture a = tiny_shape();
    const auto s = make_stage(open_device("reference"), a, whole_options(a, compute));
    const auto copy = s->make_serving_copy(1, true).run();
    REQUIRE(copy.ok());
    const auto canonical = (*copy)->canonical();
    REQUIRE(canonical != nullptr);
    std::vector<kernels::digest> units;
    for (const unit& u : s->units()) {
      std::vector<tensor_digest> tensors;
      for (const parameter& p : u.parameters) {
        const auto values = read_all(*s, p.name, parameter_part::weight);
        std::string bytes;
        for (float v : values) {
          uint32_t bits = 0;
          std::memcpy(&bits, &v, 4);
          if (compute == dtype::bf16)
            bits = kernels::to_bf16(v).bits;
          for (size_t i = 0; i < kernels::size_of(compute); ++i)
            bytes += static_cast<char>(bits >> (8 * i) & 0xff);
        }
        tensors.push_back({p.name, compute, p.shape, kernels::sha256::of(bytes)});
      }
      units.push_back(unit_hash(std::move(tensors)));
    }
    CHECK(canonical->unit_hashes() == units);
    CHECK(canonical->hash() == model_hash(units));
    if (compute == dtype::f32)
      CHECK(*s->unit_hashes().run() == units);
    (*copy)->drop_canonical();
    CHECK((*copy)->canonical() == nullptr);
  }
}

TEST_CASE("a decode runs between the slices of training, prefill and scoring without changing any of them") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  stage_options o = whole_options(a);
  o.slice_flops = 5000;
  const auto s = make_stage(device, a, o);
  const auto quiet = make_stage(device, a, o);
  for (stage* each : {s.get(), quiet.get()}) {
    REQUIRE(each->make_serving_copy(1, false).run().ok());
    append(*each, "live", 0, {4, 5, 6}, true);
  }
  const train_input batch = whole_batch(a, 2, 16, 1);
  const auto expected_train = quiet->forward_train(batch).run();
  const auto expected_fill = append(*quiet, "other", 0, {9, 8, 7, 6, 5, 4, 9, 8}, true);
  score_input scored;
  scored.sequences = 3;
  scored.positions_per_sequence = 8;
  scored.token_ids.assign(24, 11);
  scored.labels.assign(24, 12);
  scored.weights = quiet->newest();
  const auto expected_score = quiet->score(scored).run();
  scored.weights = s->newest();

  infer_input fill;
  fill.rows = {row_of("other", 0, 8)};
  fill.token_ids = {9, 8, 7, 6, 5, 4, 9, 8};
  fill.want = infer_result::logits;
  auto training = s->forward_train(batch);
  auto prefill = s->infer(fill, true);
  auto score = s->score(scored);
  uint32_t position = 3;
  bool more = true;
  while (more) {
    more = !training.resume();
    more |= !prefill.resume();
    more |= !score.resume();
    if (position < 30) {
      CHECK(append(*s, "live", position, {7}, false) == append(*quiet, "live", position, {7}, false));
      ++position;
    }
    CHECK((prefill.done() || s->infer(fill, true).run().status().why() == code::invalid_argument));
  }
  CHECK(position == 30);
  CHECK(training.take()->loss == expected_train->loss);
  const auto filled = prefill.take();
  REQUIRE(filled.ok());
  const auto* logits = filled->logits.view.as<const float>();
  CHECK(std::vector<float>(logits, logits + 64) == expected_fill);
  CHECK(score.take()->loss == expected_score->loss);
  CHECK(read_parts(*s, parameter_part::gradient) == read_parts(*quiet, parameter_part::gradient));
}

TEST_CASE("a cancelled prefill leaves its session where the call began") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  stage_options o = whole_options(a);
  o.slice_flops = 5000;
  const auto s = make_stage(device, a, o);
  REQUIRE(s->make_serving_copy(1, false).run().ok());
  append(*s, "x", 0, {4, 5, 6, 7}, true);
  const auto expected = append(*s, "x", 4, {1, 2, 3}, true);
  const uint64_t allocated = device->allocated();
  for (int slices = 1; slices < 12; ++slices) {
    infer_input in;
    in.rows = {row_of("x", 4, 28)};
    in.token_ids.assign(28, 9);
    auto work = s->infer(in, true);
    for (int i = 0; i < slices; ++i)
      (void)work.resume();
    CHECK_FALSE(work.done());
    CHECK(s->release("unknown") == false);
    work.reset();
    CHECK(*s->session_length("x") == 4);
  }
  CHECK(append(*s, "x", 4, {1, 2, 3}, true) == expected);
  // Released while its call runs, it goes with the call.
  infer_input in;
  in.rows = {row_of("x", 4, 28)};
  in.token_ids.assign(28, 9);
  auto work = s->infer(in, true);
  (void)work.resume();
  CHECK(s->release("x"));
  CHECK(s->session_length("x").has_value());
  work.reset();
  CHECK_FALSE(s->session_length("x").has_value());
  CHECK(s->kv_blocks_free() == 40);
  CHECK(device->allocated() == allocated);
}

TEST_CASE("a pipeline of two stages decodes like one") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto whole = make_stage(device, a, whole_options(a));
  stage_options front_options = whole_options(a);
  front_options.head = false;
  front_options.layer_end = 1;
  stage_options back_options = whole_options(a);
  back_options.embed = false;
  back_options.layer_begin = 1;
  const auto front = make_stage(device, a, front_options);
  const auto back = make_stage(device, a, back_options);
  for (stage* s : {whole.get(), front.get(), back.get()})
    REQUIRE(s->make_serving_copy(1, false).run().ok());
  const auto through = [&](uint32_t position, std::vector<int32_t> ids, bool prefill) {
    infer_input first;
    first.rows = {row_of("x", position, static_cast<int64_t>(ids.size()))};
    first.token_ids = std::move(ids);
    first.want = infer_result::hidden;
    const infer_output hidden = must(front->infer(first, prefill));
    infer_input second;
    second.rows = first.rows;
    second.hidden = hidden.hidden;
    second.want = infer_result::logits;
    const infer_output out = must(back->infer(second, prefill));
    const auto* values = out.logits.view.as<const float>();
    return std::vector<float>(values, values + 64);
  };
  CHECK(through(0, {4, 5, 6}, true) == append(*whole, "x", 0, {4, 5, 6}, true));
  CHECK(through(3, {7}, false) == append(*whole, "x", 3, {7}, false));
  infer_input wrong;
  wrong.rows = {row_of("x", 4, 1)};
  wrong.token_ids = {1};
  wrong.want = infer_result::logits;
  CHECK(front->infer(wrong, false).run().status().why() == code::invalid_argument); // no head there
  CHECK(back->infer(wrong, false).run().status().why() == code::invalid_argument);  // no embedding there
}

TEST_CASE("scores equal training's loss and take windows of any number") {
  for (const std::string& backend : backends()) {
    INFO(backend);
    const architecture a = tiny_shape();
    const auto s = make_stage(open_device(backend), a, whole_options(a));
    REQUIRE(s->make_serving_copy(1, false).run().ok());
    const train_input batch = whole_batch(a, 4, 16, 3);
    const auto trained = s->forward_train(batch).run();
    score_input in;
    in.sequences = 4;
    in.positions_per_sequence = 16;
    in.token_ids = batch.token_ids;
    in.labels = batch.labels;
    const auto inner = s->score(in).run();
    REQUIRE(inner.ok());
    CHECK(std::abs(inner->loss - trained->loss) < 1e-6);
    CHECK(inner->label_count == 64);
    in.weights = s->newest();
    CHECK(std::abs(s->score(in).run()->loss - trained->loss) < 1e-5);
    in.labels.pop_back();
    CHECK(s->score(in).run().status().why() == code::invalid_argument);
  }
}

TEST_CASE("malformed inference input is refused as a whole") {
  const auto s = serving_stage(open_device("reference"), dtype::f32);
  const auto refused = [&](auto change, bool prefill = true) {
    infer_input in;
    in.rows = {row_of("a", 0, 2)};
    in.token_ids = {1, 2};
    change(in);
    return s->infer(std::move(in), prefill).run().status().why() == code::invalid_argument;
  };
  CHECK(refused([](infer_input& in) { in.rows.clear(); }));
  CHECK(refused([](infer_input& in) { in.rows.push_back(in.rows[0]); }));
  CHECK(refused([](infer_input& in) { in.rows[0].count = 0; }));
  CHECK(refused([](infer_input& in) { in.rows[0].count = -1; }));
  CHECK(refused([](infer_input& in) { in.rows[0].count = INT64_MAX; }));
  CHECK(refused([](infer_input& in) { in.rows[0].cache_position = UINT32_MAX; }));
  CHECK(refused([](infer_input& in) { in.rows[0].cache_position = 63; }));
  CHECK(refused([](infer_input& in) { in.rows[0].session.clear(); }));
  CHECK(refused([](infer_input& in) { in.token_ids[0] = 64; }));
  CHECK(refused([](infer_input& in) { in.token_ids.pop_back(); }));
  CHECK(refused([](infer_input& in) { in.want = infer_result::token; }));  // no sampling parameters
  CHECK(refused([](infer_input& in) { in.want = infer_result::hidden; })); // has the head
  CHECK(refused([](infer_input& in) { in.reply = dtype::i8; }));
  CHECK(refused([](infer_input& in) { in.rows[0].count = 33, in.token_ids.assign(33, 1); }));
  CHECK(refused([](infer_input& in) { in.rows[0].count = 9, in.token_ids.assign(9, 1); }, false));
  CHECK(refused([](infer_input& in) {
    in.want = infer_result::token;
    in.rows[0].sample.emplace();
    in.rows[0].sample->temperature = -1;
  }));
  CHECK(s->sessions() == 0);
}

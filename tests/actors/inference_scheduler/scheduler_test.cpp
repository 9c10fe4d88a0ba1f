#include "tests/actors/inference_scheduler/scheduler_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

int32_t token_of_letter(char c) {
  return static_cast<int32_t>(text::first_byte_id) + static_cast<unsigned char>(c);
}

} // namespace

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a generation streams its tokens and ends with all that is known of it") {
  next = [](const std::string&, uint32_t position) {
    return token_of_letter(static_cast<char>('a' + position - 6));
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto r = request(sink, "hello", 3);
  r.logprobs = true;
  auto admitted = ask<generation_admitted>(*this, actor, r);
  REQUIRE(admitted);
  REQUIRE(sink->result);
  const auto& result = *sink->result;
  CHECK(sink->text() == "abc");
  CHECK(result.text == "abc");
  CHECK(result.id == admitted->id);
  CHECK(result.finish_reason == "length");
  CHECK(result.prompt_tokens == 6);
  CHECK(result.completion_tokens == 3);
  CHECK(result.model_hash == std::string(63, '0') + "7");
  CHECK(result.seed == 1);
  CHECK(result.logprob == -1.5);
  CHECK(sink->pieces.front().logprob == -0.5);
  CHECK_FALSE(result.failure);
  CHECK(sessions.empty());
  CHECK(counters->inference_requests == 1);
  CHECK(counters->inference_tokens == 3);
  CHECK(counters->inference_running == 0);
  CHECK(counters->latency_count == 1);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "the prompt goes in with BOS first, and each token is drawn with its own counter") {
  auto actor = make();
  auto r = request(std::make_shared<recording_sink>(), "hi", 3);
  r.top_k = 100'000;
  r.temperature = 0.5F;
  REQUIRE(ask<generation_admitted>(*this, actor, r));
  const auto& prefill = calls.front();
  CHECK(prefill.mode == forward_mode::prefill);
  CHECK(prefill.token_ids.view.as<int32_t>()[0] == 1);
  CHECK(prefill.token_ids.view.as<int32_t>()[1] == token_of_letter('h'));
  const auto& spec = *prefill.rows.front().sample;
  CHECK(spec.valid_vocab == 266);
  CHECK(spec.top_k == 266);
  CHECK(spec.temperature == 0.5F);
  CHECK(spec.step == 0);
  CHECK(calls[1].mode == forward_mode::decode);
  CHECK(calls[1].rows.front().sample->step == 1);
  CHECK(calls[1].rows.front().cache_position == 3);
  CHECK(calls[2].rows.front().sample->step == 2);
}

TEST_CASE_FIXTURE(scheduler_fixture, "the end token ends with stop and is no text") {
  next = [](const std::string&, uint32_t position) { return position == 8 ? 2 : token_of_letter('a'); };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink, "hello", 50)));
  CHECK(sink->result->finish_reason == "stop");
  CHECK(sink->result->text == "aa");
  CHECK(sink->result->completion_tokens == 2);
}

TEST_CASE_FIXTURE(scheduler_fixture, "a stop string across tokens is cut out of text and stream") {
  const std::string says = "one\n\nHuman: two";
  next = [&](const std::string&, uint32_t position) { return token_of_letter(says[position - 6]); };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto r = request(sink, "hello", 50);
  r.stop = {"Human:", "never"};
  REQUIRE(ask<generation_admitted>(*this, actor, r));
  CHECK(sink->result->finish_reason == "stop");
  CHECK(sink->result->text == "one\n\n");
  CHECK(sink->text() == "one\n\n");
  CHECK(sink->result->completion_tokens == 11);
}

TEST_CASE_FIXTURE(scheduler_fixture, "a long prompt goes in by chunks, and only the last one samples") {
  options.prefill_chunk = 16;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink, std::string(40, 'p'), 2)));
  REQUIRE(calls.size() >= 4);
  for (int i = 0; i < 2; ++i) {
    CHECK(calls[static_cast<size_t>(i)].sequence_lengths == std::vector<uint32_t>{16});
    CHECK(calls[static_cast<size_t>(i)].omit_tensors);
    CHECK_FALSE(calls[static_cast<size_t>(i)].apply_head);
    CHECK(calls[static_cast<size_t>(i)].rows.front().cache_position == static_cast<uint32_t>(16 * i));
  }
  CHECK(calls[2].sequence_lengths == std::vector<uint32_t>{9});
  CHECK(calls[2].apply_head);
  CHECK(sink->result->completion_tokens == 2);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "sixty-four generations at once share decode steps and each get their own text") {
  options.max_queue = 64;
  next = [](const std::string& session, uint32_t) {
    return token_of_letter(static_cast<char>('a' + session.back() % 26));
  };
  auto actor = make();
  std::vector<std::shared_ptr<recording_sink>> sinks;
  std::vector<decltype(ask_later<generation_admitted>(*this, actor, request({})))> pending;
  for (int i = 0; i < 64; ++i) {
    sinks.push_back(std::make_shared<recording_sink>());
    pending.push_back(ask_later<generation_admitted>(
        *this, actor, request(sinks.back(), std::string(1 + i % 7, 'q'), 5 + static_cast<uint32_t>(i % 11))));
  }
  sched.run();
  for (auto& one : pending)
    CHECK(one.receive());
  for (size_t i = 0; i < sinks.size(); ++i) {
    REQUIRE(sinks[i]->result);
    CHECK(sinks[i]->result->completion_tokens == 5 + i % 11);
    CHECK(sinks[i]->result->finish_reason == "length");
    CHECK(sinks[i]->text() == sinks[i]->result->text);
    CHECK(sinks[i]->text() == std::string(sinks[i]->text().size(), sinks[i]->text().front()));
  }
  CHECK(decode_rows_max > 16);
  CHECK(decode_rows_max <= options.batch_max);
  CHECK(sessions.empty());
  CHECK(counters->inference_requests == 64);
  CHECK(counters->inference_queued == 0);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a cancelled generation ends within one token and pays for what it used") {
  options.charge_self = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto admitted = ask_later<generation_admitted>(*this, actor, request(sink, "hello", 200));
  while (sink->pieces.size() < 3)
    REQUIRE(sched.try_run_once());
  const auto id = admitted.receive()->id;
  caf::anon_send(actor, cancel_generation{id});
  caf::anon_send(actor, cancel_generation{"inf_unknown"});
  sched.run();
  REQUIRE(sink->result);
  CHECK(sink->pieces.size() <= 4);
  CHECK(sink->result->finish_reason == "error");
  CHECK(code_of(*sink->result->failure) == errc::cancelled);
  REQUIRE(money->settled.size() == 1);
  CHECK(money->settled.front().completion_tokens == sink->result->completion_tokens);
  CHECK(sessions.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "a generation whose caller never knew of it costs nothing") {
  options.charge_self = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto admitted = ask_later<generation_admitted>(*this, actor, request(sink, "hello", 200));
  while (sink->pieces.size() < 3)
    REQUIRE(sched.try_run_once());
  caf::anon_send(actor, cancel_generation{admitted.receive()->id, true});
  sched.run();
  REQUIRE(sink->result);
  CHECK(sink->pieces.size() <= 4);
  CHECK(sink->result->cost == neuro_amount{});
  CHECK(money->settled.empty());
  CHECK(money->refunded.size() == 1);
  CHECK(sessions.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a failure before the first token is refunded, one after it is settled") {
  options.charge_self = true;
  int calls_left = 0;
  call_outcome = [&](const forward_request& r) -> caf::error {
    if (!r.token_ids || calls_left-- > 0)
      return {};
    return refuse(errc::internal, "device lost");
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  REQUIRE(sink->result);
  CHECK(code_of(*sink->result->failure) == errc::internal);
  CHECK(sink->result->cost == neuro_amount{});
  CHECK(money->refunded.size() == 1);
  CHECK(money->settled.empty());
  calls_left = 2;
  sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  CHECK(sink->result->completion_tokens == 2);
  CHECK(sink->result->finish_reason == "error");
  REQUIRE(money->settled.size() == 1);
  CHECK(money->settled.front().completion_tokens == 2);
  CHECK(money->open.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a row that lost its session is rebuilt from its tokens, the others do not notice") {
  next = [](const std::string&, uint32_t position) {
    return token_of_letter(static_cast<char>('a' + position % 26));
  };
  int failures = 1;
  row_outcome = [&](const forward_request& r, size_t row) {
    if (r.mode == forward_mode::decode && row == 0 && r.rows[0].cache_position == 8 && failures-- > 0)
      return row_status::evicted;
    return row_status::ok;
  };
  auto actor = make();
  auto one = std::make_shared<recording_sink>();
  auto two = std::make_shared<recording_sink>();
  auto first = ask_later<generation_admitted>(*this, actor, request(one, "hello", 6));
  auto second = ask_later<generation_admitted>(*this, actor, request(two, "hello", 6));
  sched.run();
  CHECK(first.receive());
  CHECK(second.receive());
  CHECK(one->result->text == two->result->text);
  CHECK(one->result->completion_tokens == 6);
  CHECK(failures < 1);
  CHECK(sessions.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "a rebuild that would land on other weights fails instead") {
  row_outcome = [&](const forward_request& r, size_t) {
    if (r.mode != forward_mode::decode || copy_id == 8)
      return row_status::ok;
    copy_id = 8;
    return row_status::evicted;
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  REQUIRE(sink->result);
  CHECK(code_of(*sink->result->failure) == errc::aborted);
  CHECK(sink->result->model_hash.ends_with("7"));
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "without memory for its cache a generation waits for another to end; alone it fails") {
  size_t room = 1;
  row_outcome = [&](const forward_request& r, size_t row) {
    const auto& id = r.rows[row].session_id;
    if (r.mode == forward_mode::prefill && !sessions.contains(id) && sessions.size() >= room)
      return row_status::no_memory;
    return row_status::ok;
  };
  options.prefill_chunk = 6; // one prompt a call
  auto actor = make();
  auto one = std::make_shared<recording_sink>();
  auto two = std::make_shared<recording_sink>();
  auto first = ask_later<generation_admitted>(*this, actor, request(one, "hello", 4));
  auto second = ask_later<generation_admitted>(*this, actor, request(two, "hello", 4));
  sched.run();
  CHECK(first.receive());
  CHECK(second.receive());
  REQUIRE(one->result);
  REQUIRE(two->result);
  CHECK(one->result->completion_tokens == 4);
  CHECK(two->result->completion_tokens == 4);
  room = 0;
  auto three = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(three, "hello", 4)));
  REQUIRE(three->result);
  CHECK(code_of(*three->result->failure) == errc::overloaded);
}

TEST_CASE_FIXTURE(scheduler_fixture, "weights that changed between admission and prefill are no failure") {
  int times = 1;
  call_outcome = [&](const forward_request& r) -> caf::error {
    if (r.mode != forward_mode::prefill || times-- <= 0)
      return {};
    problem what;
    what.reason = "model_version";
    what.details = {{"model_version", int64_t{3}}};
    return refuse(errc::failed_precondition, std::move(what));
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  CHECK(sink->result->finish_reason == "length");
  CHECK(calls.back().header.model_version == 3);
}

TEST_CASE_FIXTURE(scheduler_fixture, "a worker that is overloaded for a moment is asked again") {
  int times = 2;
  call_outcome = [&](const forward_request&) -> caf::error {
    return times-- > 0 ? refuse(errc::overloaded, "full") : caf::error{};
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  for (int i = 0; i < 5 && !sink->result; ++i)
    advance(100'000);
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
}

TEST_CASE_FIXTURE(scheduler_fixture, "a generation that takes longer than the limit ends with a timeout") {
  next = [this](const std::string&, uint32_t) {
    clock->advance_s(50);
    return token_of_letter('x');
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink, "hello", 50)));
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "error");
  CHECK(code_of(*sink->result->failure) == errc::timeout);
  CHECK(sink->result->completion_tokens == 2);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "draining lets generations finish, and after ten seconds ends and settles them") {
  options.charge_self = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto admitted = ask_later<generation_admitted>(*this, actor, request(sink, "hello", 5));
  auto drained = ask_later<caf::unit_t>(*this, actor, drain_atom_v);
  sched.run();
  (void)admitted.receive();
  CHECK(drained.receive());

  auto other = make();
  auto endless = std::make_shared<recording_sink>();
  auto slow = ask_later<generation_admitted>(*this, other, request(endless, "hello", 200));
  while (endless->pieces.size() < 2)
    REQUIRE(sched.try_run_once());
  auto ending = ask_later<caf::unit_t>(*this, other, drain_atom_v);
  sched.try_run_once();
  sched.try_run_once();
  clock->advance_s(10);
  sched.advance_time(std::chrono::seconds(10));
  sched.run();
  (void)slow.receive();
  CHECK(ending.receive());
  REQUIRE(endless->result);
  CHECK(money->open.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "a settlement that fails is no end of the answer") {
  options.charge_self = true;
  money->settle_fails = true;
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink)));
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  CHECK(sink->result->cost == neuro_amount{});
}

TEST_CASE_FIXTURE(scheduler_fixture, "a prompt of invalid UTF-8 and NUL is taken as the bytes it is") {
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  auto admitted = ask<generation_admitted>(*this, actor, request(sink, std::string("\xff\0a", 3), 2));
  REQUIRE(admitted);
  CHECK(admitted->prompt_tokens == 4);
  CHECK(sink->result->finish_reason == "length");
}

TEST_CASE_FIXTURE(scheduler_fixture, "an end in the middle of a batch leaves the other rows as they were") {
  next = [](const std::string&, uint32_t position) {
    return token_of_letter(static_cast<char>('a' + position % 26));
  };
  auto actor = make();
  REQUIRE(ask<generation_admitted>(*this, actor, request(std::make_shared<recording_sink>()))); // hash known
  auto first = std::make_shared<recording_sink>();
  auto second = std::make_shared<recording_sink>();
  auto third = std::make_shared<recording_sink>();
  caf::anon_send(actor, request(first, "hello", 2));
  caf::anon_send(actor, request(second, "hello", 9));
  caf::anon_send(actor, request(third, "hello", 4));
  sched.run();
  REQUIRE(second->result);
  CHECK(first->text() == "gh");
  CHECK(second->text() == "ghijklmno");
  CHECK(third->text() == "ghij");
  CHECK(sessions.empty());
}

TEST_CASE_FIXTURE(scheduler_fixture, "readers are told when the scheduler ends under them") {
  auto actor = make();
  call_outcome = [&](const forward_request& r) -> caf::error {
    if (r.mode == forward_mode::decode && r.token_ids && r.rows.front().cache_position == 8)
      caf::anon_send_exit(caf::actor_cast<caf::actor>(actor), caf::exit_reason::kill);
    return {};
  };
  auto sink = std::make_shared<recording_sink>();
  caf::anon_send(actor, request(sink, "hello", 50));
  sched.run();
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "error");
  CHECK(code_of(*sink->result->failure) == errc::unavailable);
  CHECK(sink->result->completion_tokens == 3);
}

TEST_CASE_FIXTURE(scheduler_fixture,
                  "a prompt that lost its cache before the first token may begin with newer weights") {
  options.prefill_chunk = 4;
  bool lost = false;
  row_outcome = [&](const forward_request& r, size_t) {
    if (r.mode == forward_mode::prefill && r.rows.front().cache_position == 4 && !std::exchange(lost, true)) {
      copy_id = 8; // refreshed meanwhile
      return row_status::evicted;
    }
    return row_status::ok;
  };
  auto actor = make();
  auto sink = std::make_shared<recording_sink>();
  REQUIRE(ask<generation_admitted>(*this, actor, request(sink, "hello, you", 3)));
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  CHECK(sink->result->model_hash == std::string(63, '0') + "8");
}

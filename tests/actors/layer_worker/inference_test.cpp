#include "tests/actors/layer_worker/worker_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(worker_fixture, "before the first serving copy nothing is served") {
  CHECK(ask<forward_reply>(*this, worker, prompt("a", {1, 30})).code() == errc::not_ready);
  CHECK(ask<serving_info>(*this, worker, session_copy{}).code() == errc::not_ready);
  CHECK(ask<std::string>(*this, worker, serving_hash{}).code() == errc::not_ready);
}

TEST_CASE_FIXTURE(worker_fixture, "chunked prefill and decode give the tokens of one prefill") {
  refresh();
  auto whole = ask<forward_reply>(*this, worker, prompt("whole", {1, 30, 31, 32, 33}));
  REQUIRE(whole);
  auto first = ask<forward_reply>(*this, worker, prompt("parts", {1, 30, 31}, false));
  REQUIRE(first);
  CHECK(first->sampled.empty());
  CHECK_FALSE(first->hidden);
  auto rest = prompt("parts", {32, 33});
  rest.rows.front().cache_position = 3;
  auto second = ask<forward_reply>(*this, worker, rest);
  REQUIRE(second);
  CHECK(second->rows.front().cache_length == 5);
  CHECK(second->sampled == whole->sampled);
  CHECK(second->logprobs.front() == doctest::Approx(whole->logprobs.front()).epsilon(1e-4));
  // A repeated call truncates first and gives the same.
  CHECK(ask<forward_reply>(*this, worker, rest)->sampled == whole->sampled);
}

TEST_CASE_FIXTURE(worker_fixture, "rows of different length go together, and a row fails by itself") {
  refresh();
  auto alone = ask<forward_reply>(*this, worker, prompt("x", {1, 40, 41}));
  auto both = prompt("a", {1, 40, 41, 1, 50, 0});
  both.token_ids = integers({1, 40, 41, 1, 50, 0}, 2, 3);
  both.sequence_lengths = {3, 2};
  both.rows.push_back({"b", 0, greedy(), "inf", false});
  auto answered = ask<forward_reply>(*this, worker, both);
  REQUIRE(answered);
  CHECK(answered->sampled.front() == alone->sampled.front());
  CHECK(answered->rows[1].cache_length == 2);
  auto step = decode("a", 60, 3);
  step.token_ids = integers({60, 60, 60}, 3, 1);
  step.rows.push_back({"nobody", 5, greedy(), "inf", false});
  step.rows.push_back({"b", 7, greedy(), "inf", false});
  answered = ask<forward_reply>(*this, worker, step);
  REQUIRE(answered);
  CHECK(answered->rows[0].status == row_status::ok);
  CHECK(answered->rows[1].status == row_status::unknown_session);
  CHECK(answered->rows[2].status == row_status::cache_mismatch);
  CHECK(answered->sampled[1] == -1);
}

TEST_CASE_FIXTURE(worker_fixture, "a single session's failures are errors") {
  refresh();
  auto r = forward(forward_mode::decode, "nobody");
  r.token_ids = integers({30}, 1, 1);
  r.cache_position = 4;
  r.apply_head = true;
  CHECK(ask<forward_reply>(*this, worker, r).code() == errc::not_found);
  auto first = forward(forward_mode::prefill, "me");
  first.token_ids = integers({1, 30}, 1, 2);
  first.omit_tensors = true;
  auto begun = ask<forward_reply>(*this, worker, first);
  REQUIRE(begun);
  CHECK(begun->report.cache_length == 2);
  r.header.session_id = "me";
  CHECK(ask<forward_reply>(*this, worker, r).reason() == "cache");
  r.cache_position = 2;
  auto logits = ask<forward_reply>(*this, worker, r);
  REQUIRE(logits);
  CHECK(logits->logits.view.shape[1] == 320);
  first.header.model_version = 9;
  CHECK(ask<forward_reply>(*this, worker, first).reason() == "model_version");
}

TEST_CASE_FIXTURE(worker_fixture, "a session keeps its copy while newer ones are made, for at most 120 s") {
  refresh(0, 0);
  auto begun = ask<forward_reply>(*this, worker, prompt("old", {1, 30, 31}));
  REQUIRE(begun);
  const auto old_copy = begun->rows.front().copy_id;
  auto expected = ask<forward_reply>(*this, worker, decode("old", 40, 3));
  bind();
  for (uint64_t step = 1; step <= 3; ++step) {
    REQUIRE(ask<forward_reply>(*this, worker, train(step)));
    REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, step)));
  }
  refresh(0, 3);
  auto newer = ask<serving_info>(*this, worker, session_copy{});
  CHECK(newer->copy_id == old_copy + 1);
  CHECK(newer->inner_step == 3);
  CHECK(ask<serving_info>(*this, worker, session_copy{"old"})->copy_id == old_copy);
  auto again = ask<forward_reply>(*this, worker, decode("old", 40, 3));
  CHECK(again->logprobs == expected->logprobs);
  auto fresh = ask<forward_reply>(*this, worker, prompt("new", {1, 30, 31}));
  CHECK(fresh->rows.front().copy_id == newer->copy_id);
  CHECK(fresh->logprobs != begun->logprobs);
  const auto old_hash = ask<std::string>(*this, worker, serving_hash{old_copy});
  const auto new_hash = ask<std::string>(*this, worker, serving_hash{});
  REQUIRE(old_hash);
  CHECK(old_hash.value->size() == 64);
  CHECK(*old_hash.value != *new_hash.value);
  for (int i = 0; i < 12; ++i) { // in use all the time, so not idle
    clock->advance_s(10);
    (void)ask<forward_reply>(*this, worker, decode("old", 40, 3));
  }
  sched.advance_time(std::chrono::seconds(1));
  sched.run();
  auto late = ask<forward_reply>(*this, worker, decode("old", 40, 3));
  REQUIRE(late);
  CHECK(late->rows.front().status == row_status::evicted);
}

TEST_CASE_FIXTURE(worker_fixture, "idle sessions are freed after 120 s and closed ones at once") {
  refresh();
  REQUIRE(ask<forward_reply>(*this, worker, prompt("idle", {1, 30})));
  auto close = forward(forward_mode::decode, "idle");
  close.rows.push_back({"closed", 0, std::nullopt, "inf", true});
  REQUIRE(ask<forward_reply>(*this, worker, prompt("closed", {1, 30})));
  REQUIRE(ask<forward_reply>(*this, worker, close));
  CHECK(ask<serving_info>(*this, worker, session_copy{"closed"}).code() == errc::not_found);
  CHECK(ask<serving_info>(*this, worker, session_copy{"idle"}));
  clock->advance_s(121);
  sched.advance_time(std::chrono::seconds(1));
  sched.run();
  CHECK(ask<serving_info>(*this, worker, session_copy{"idle"}).code() == errc::not_found);
}

TEST_CASE("a session between two of its tokens is not evicted by a prefill; one that was left alone is") {
  worker_fixture f(false);
  auto how = tiny_options(tiny_architecture());
  how.kv_pool_bytes /= 20; // 2 blocks
  f.worker = f.make(tiny_stage(tiny_architecture(), how));
  f.refresh();
  REQUIRE(ask<forward_reply>(f, f.worker, f.prompt("running", std::vector<int32_t>(20, 30))));
  auto late = ask<forward_reply>(f, f.worker, f.prompt("late", {1, 30}));
  REQUIRE(late);
  CHECK(late->rows.front().status == row_status::no_memory);
  auto next = ask<forward_reply>(f, f.worker, f.decode("running", 40, 20));
  REQUIRE(next);
  CHECK(next->rows.front().status == row_status::ok);
  f.clock->advance_s(31);
  CHECK(ask<forward_reply>(f, f.worker, f.prompt("late", {1, 30}))->rows.front().status == row_status::ok);
  CHECK(ask<forward_reply>(f, f.worker, f.decode("running", 40, 21))->rows.front().status ==
        row_status::evicted);
  CHECK(ask<serving_info>(f, f.worker, session_copy{})->kv_blocks == 2);
}

TEST_CASE("when the hash of a copy cannot be had, everybody who asks is told, also later") {
  worker_fixture f(false);
  auto stage = tiny_stage();
  const auto* held = stage.get();
  f.worker = f.make(std::move(stage));
  auto copied = ask_later<serving_info>(f, f.worker, refresh_serving{});
  while (!held->newest())
    REQUIRE(f.sched.try_run_once());
  held->newest()->drop_canonical(); // before the hasher comes to it
  auto waiting = ask_later<std::string>(f, f.worker, serving_hash{});
  f.sched.run();
  CHECK(copied.receive());
  CHECK(waiting.receive().code() == errc::internal);
  CHECK(ask<std::string>(f, f.worker, serving_hash{}).code() == errc::internal);
  CHECK(ask<std::string>(f, f.worker, serving_hash{1}).code() == errc::internal);
  f.refresh();
  CHECK(ask<std::string>(f, f.worker, serving_hash{}));
}

TEST_CASE_FIXTURE(worker_fixture,
                  "SCORE gives the loss of the serving copy, not of the weights in training") {
  refresh();
  auto score = train(1);
  score.mode = forward_mode::score;
  auto before = ask<forward_reply>(*this, worker, score);
  REQUIRE(before);
  CHECK(before->label_count == 16);
  bind();
  for (uint64_t step = 1; step <= 5; ++step) {
    REQUIRE(ask<forward_reply>(*this, worker, train(step)));
    REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, step)));
  }
  CHECK(ask<forward_reply>(*this, worker, score)->loss == before->loss);
  refresh(0, 5);
  CHECK(ask<forward_reply>(*this, worker, score)->loss < before->loss);
}

TEST_CASE_FIXTURE(worker_fixture, "malformed inference work is refused by name") {
  refresh();
  const auto refused = [&](forward_request r, const char* field) {
    auto answered = ask<forward_reply>(*this, worker, std::move(r));
    CHECK(answered.code() == errc::invalid_request);
    CHECK(problem_of(answered.refused).field == field);
  };
  refused(prompt("a", {1, 400}), "token_ids");
  refused(prompt("a", std::vector<int32_t>(33, 20)), "token_ids");
  refused(prompt("", {1, 30}), "rows.session_id");
  refused(prompt(std::string(65, 's'), {1, 30}), "rows.session_id");
  auto r = prompt("a", {1, 30});
  r.rows.push_back(r.rows.front());
  refused(r, "rows");
  r.token_ids = integers({1, 30, 1, 30}, 2, 2);
  refused(r, "rows.session_id");
  r.rows.back().session_id = "b";
  r.rows.back().sample.reset();
  refused(r, "rows.sample");
  r = prompt("a", {1, 30});
  r.rows.front().sample->top_p = 0;
  refused(r, "sample");
  r.rows.front().sample = greedy();
  r.rows.front().sample->valid_vocab = 1'000'000;
  refused(r, "sample.valid_vocab");
  r = decode("a", 30, 0);
  r.token_ids = integers({30, 31}, 1, 2);
  refused(r, "rows");
  r = decode("a", 30, 0);
  r.token_ids = {};
  refused(r, "token_ids");
}

TEST_CASE_FIXTURE(worker_fixture,
                  "a full queue refuses, and what waits too long is answered with a timeout") {
  refresh();
  auto late = decode("a", 30, 0);
  late.header.deadline_steady_us = clock->steady_us();
  CHECK(ask<forward_reply>(*this, worker, late).code() == errc::timeout);
  late.header.deadline_steady_us = clock->steady_us() + 1000;
  auto waiting = ask_later<forward_reply>(*this, worker, late);
  sched.try_run_once();
  clock->advance_us(2000);
  sched.run();
  CHECK(waiting.receive().code() == errc::timeout);

  using pending_forward = decltype(ask_later<forward_reply>(*this, worker, late));
  std::vector<pending_forward> asked_all;
  for (int i = 0; i < 105; ++i)
    asked_all.push_back(ask_later<forward_reply>(*this, worker, decode("nobody", 30, 4)));
  sched.run();
  int refused = 0;
  for (auto& one : asked_all)
    refused += one.receive().code() == errc::overloaded ? 1 : 0;
  CHECK(refused == 6);
}

TEST_CASE_FIXTURE(worker_fixture, "a snapshot that waits for a COMMIT is answered when the worker drains") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto commit = ask_later<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  REQUIRE(sched.try_run_once()); // queued
  REQUIRE(sched.try_run_once()); // begun
  auto view = ask_later<snapshot_opened>(*this, worker, open_snapshot{});
  CHECK(ask<caf::unit_t>(*this, worker, drain_atom_v));
  CHECK(commit.receive().code() == errc::draining);
  CHECK(view.receive().code() == errc::draining);
}

TEST_CASE_FIXTURE(worker_fixture, "a worker that drains or ends answers everything it holds") {
  refresh();
  bind();
  auto first = ask_later<forward_reply>(*this, worker, train(1));
  auto second = ask_later<forward_reply>(*this, worker, prompt("a", {1, 30}));
  sched.try_run_once();
  sched.try_run_once();
  sched.try_run_once();
  auto drained = ask<caf::unit_t>(*this, worker, drain_atom_v);
  CHECK(drained);
  CHECK(first.receive().code() == errc::draining);
  (void)second.receive();
  CHECK(ask<forward_reply>(*this, worker, prompt("b", {1, 30})).code() == errc::draining);

  auto other = make();
  auto held = ask_later<forward_reply>(*this, other, forward(forward_mode::score));
  sched.try_run_once();
  caf::anon_send_exit(other, caf::exit_reason::user_shutdown);
  sched.run();
  CHECK_FALSE(held.receive());
}

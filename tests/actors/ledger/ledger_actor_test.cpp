#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"
#include "tests/support/small_disk.hpp"

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <thread>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct config : caf::actor_system_config {
  explicit config(bool stepped) {
    add_message_types<caf::id_block::neuroshard_common>();
    add_message_types<caf::id_block::neuroshard_status>();
    add_message_types<caf::id_block::neuroshard_ledger>();
    if (stepped)
      set("scheduler.policy", caf::atom("testing"));
  }
};

/// The actor under the testing scheduler: no thread runs but this one.
struct stepped : book_fixture {
  config cfg{true};
  caf::actor_system system{cfg};
  caf::scheduler::test_coordinator& scheduler =
      dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
  caf::scoped_actor self{system};
  ledger_actor ledger;
  record_proof first_steps; ///< of the weights "m"

  stepped() {
    open();
    fund(200_neuro);
    first_steps = claim(0, 10, 40'960, 2, digest_of("m"));
    ledger = spawn_ledger(system, std::move(book), options, false);
    scheduler.run();
  }
  ~stepped() {
    self->send_exit(ledger, caf::exit_reason::user_shutdown);
    scheduler.run();
  }
  template <class Result, class Message>
  Result ask(const Message& what) {
    auto request = self->request(ledger, caf::infinite, what);
    scheduler.run();
    Result got{};
    request.receive([&](Result& result) { got = std::move(result); },
                    [&](caf::error& e) { FAIL(problem_of(e).message); });
    return got;
  }
  template <class Result, class Message>
  caf::error ask_refused(const Message& what) {
    auto request = self->request(ledger, caf::infinite, what);
    scheduler.run();
    caf::error got;
    request.receive([&](Result&) { FAIL("was not refused"); }, [&](caf::error& e) { got = e; });
    return got;
  }
};

} // namespace

TEST_CASE_FIXTURE(stepped, "a send is answered, and refusals carry their details") {
  const auto sent = ask<send_result>(send_neuro{friend_address, 10_neuro, {}, {}});
  CHECK(sent.fee == 0.01_neuro);
  const auto poor = ask_refused<send_result>(send_neuro{friend_address, 10'000_neuro, {}, {}});
  CHECK(code_of(poor) == errc::insufficient_balance);
  CHECK(detail_of<neuro_amount>(poor, "required") == 10'010_neuro);
  CHECK(reader()->balance(friend_address)->available == 10_neuro);
}

TEST_CASE_FIXTURE(stepped, "operations that wait together share one commit, and none is answered before it") {
  const auto before = ask<ledger_status>(get_ledger_status{});
  const auto seen = reader();
  using request_type = decltype(self->request(ledger, caf::infinite, send_neuro{}));
  std::vector<request_type> requests;
  for (int i = 0; i < 64; ++i)
    requests.push_back(self->request(ledger, caf::infinite, send_neuro{friend_address, {1'000}, {}, {}}));
  scheduler.run();
  int answered = 0;
  for (auto& request : requests)
    request.receive([&](send_result&) { ++answered; }, [&](caf::error& e) { FAIL(problem_of(e).message); });
  CHECK(answered == 64);
  const auto after = ask<ledger_status>(get_ledger_status{});
  CHECK(after.groups_committed == before.groups_committed + 1);
  CHECK(after.transactions_committed == before.transactions_committed + 64);
  CHECK(seen->balance(friend_address)->available.atto == 64'000);
}

TEST_CASE_FIXTURE(stepped, "a generation is reserved, settled and never paid twice") {
  const auto reserved = ask<reserve_result>(reserve_inference{"inf_1", 10, 20});
  CHECK(reserved.reserved == 0.003_neuro);
  CHECK(ask<ledger_status>(get_ledger_status{}).open_reservations == 1);
  settle_inference what;
  what.request_id = "inf_1";
  what.prompt_tokens = 10;
  what.driver = what.validator = me();
  what.workers = {{me(), 1, 1, ""}};
  CHECK(ask<settle_result>(what).cost == 0.001_neuro);
  CHECK(ask<settle_result>(what).origin.replayed);
  CHECK(reason_of(ask_refused<refund_result>(refund_inference{"inf_1"})) == "already_settled");
}

TEST_CASE_FIXTURE(stepped, "receipts and offences are recorded in the middle of other operations") {
  const auto before = ask<ledger_status>(get_ledger_status{});
  const auto helper = identity_of("a-helper");
  const auto blob = signed_by(helper, work_for(helper, *options.identity, "inf_1", 4, 10));
  auto first = self->request(ledger, caf::infinite, send_neuro{friend_address, 1_neuro, {}, {}});
  auto offence = self->request(
      ledger, caf::infinite,
      record_offence{offence_class::refuted_proof, options.identity->node_id(), me(), "evidence"});
  auto kept = self->request(ledger, caf::infinite, record_receipt{blob, {}});
  auto last = self->request(ledger, caf::infinite, send_neuro{friend_address, 1_neuro, {}, {}});
  scheduler.run();
  const auto failed = [](caf::error& e) { FAIL(problem_of(e).message); };
  first.receive([](send_result&) {}, failed);
  offence.receive([](offence_result& result) { CHECK(result.slashed == 10_neuro); }, failed);
  kept.receive([](receipt_recorded& result) { CHECK(!result.confirmed); }, failed);
  last.receive([](send_result&) {}, failed);
  CHECK(ask<ledger_status>(get_ledger_status{}).groups_committed == before.groups_committed + 1);
  CHECK(reader()->supply()->burned == 10.002_neuro);
  CHECK(reader()->receipts(10, 0)->total == 1);
  verify(true);
}

TEST_CASE_FIXTURE(stepped, "time is watched by the actor's own ticks") {
  ask<reserve_result>(reserve_inference{"inf_1", 10, 20});
  clock->advance_s(601);
  scheduler.advance_time(std::chrono::seconds(6));
  scheduler.run();
  CHECK(ask<ledger_status>(get_ledger_status{}).open_reservations == 0);
  scheduler.advance_time(std::chrono::seconds(6));
  scheduler.run();
}

TEST_CASE_FIXTURE(stepped, "a delivered answer is no longer given to an identical request") {
  const auto mark = mark_of("body");
  const auto first = ask<send_result>(send_neuro{friend_address, 1_neuro, {}, mark});
  CHECK(ask<send_result>(send_neuro{friend_address, 1_neuro, {}, mark}).origin.replayed);
  self->send(ledger, mark_delivered{first.origin.row});
  scheduler.run();
  CHECK(!ask<send_result>(send_neuro{friend_address, 1_neuro, {}, mark}).origin.replayed);
}

TEST_CASE_FIXTURE(stepped, "the shared status tells how the ledger is") {
  const auto status = ask<actor_status>(status_atom_v);
  CHECK(status.name == "ledger");
  CHECK(status.state == actor_status::health::ok);
}

TEST_CASE_FIXTURE(stepped, "draining closes the book; later operations are refused") {
  auto last = self->request(ledger, caf::infinite, send_neuro{friend_address, 1_neuro, {}, {}});
  auto drained = self->request(ledger, caf::infinite, drain_atom_v);
  scheduler.run();
  bool sent = false, closed = false;
  last.receive([&](send_result&) { sent = true; }, [](caf::error& e) { FAIL(problem_of(e).message); });
  drained.receive([&] { closed = true; }, [](caf::error& e) { FAIL(problem_of(e).message); });
  CHECK(sent);
  CHECK(closed);
  CHECK(code_of(ask_refused<send_result>(send_neuro{friend_address, 1_neuro, {}, {}})) == errc::draining);
  verify(true);
}

TEST_CASE_FIXTURE(stepped, "every message of the interface is answered") {
  CHECK(ask<checkpoint_noted>(note_checkpoint{architecture, digest_of("m"), 1}).known_before == false);
  CHECK(ask<proof_result>(first_steps).steps_rewarded == 10);
  CHECK(!ask<found_response>(find_response{mark_of("x")}).found);
  CHECK(ask<found_response>(keep_response{mark_of("x"), "y"}).found);
  CHECK(ask<found_response>(find_response{mark_of("x")}).response == "y");
  CHECK(code_of(ask_refused<stake_result>(stake_neuro{1_neuro, 30, {}})) == errc::invalid_request);
  CHECK(code_of(ask_refused<stake_result>(add_stake{1_neuro, {}})) == errc::invalid_request);
  CHECK(code_of(ask_refused<stake_result>(extend_stake{1, {}})) == errc::invalid_request);
  CHECK(code_of(ask_refused<unstake_result>(unstake_neuro{})) == errc::invalid_request);
  CHECK(code_of(ask_refused<refund_result>(refund_inference{"inf_none"})) == errc::not_found);
}

TEST_CASE_FIXTURE(book_fixture, "a detached ledger serves many callers at once") {
  config cfg{false};
  cfg.set("scheduler.max-threads", 2);
  open();
  fund(200_neuro);
  {
    caf::actor_system system{cfg};
    const auto ledger = spawn_ledger(system, std::move(book), options, true);
    std::vector<std::thread> callers;
    std::atomic<int> good{0};
    for (int i = 0; i < 8; ++i)
      callers.emplace_back([&, i] {
        caf::scoped_actor self{system};
        for (int n = 0; n < 50; ++n)
          self->request(ledger, caf::infinite, send_neuro{friend_address, {1'000}, std::to_string(i), {}})
              .receive([&](send_result&) { ++good; }, [](caf::error&) {});
      });
    for (auto& caller : callers)
      caller.join();
    CHECK(good == 400);
    caf::scoped_actor self{system};
    self->request(ledger, caf::infinite, get_ledger_status{})
        .receive(
            [](ledger_status& status) {
              CHECK(status.transactions_committed == 400);
              CHECK(status.groups_committed < 400);
            },
            [](caf::error&) { FAIL("no status"); });
    self->request(ledger, caf::infinite, drain_atom_v)
        .receive([] {}, [](caf::error&) { FAIL("not drained"); });
    self->send_exit(ledger, caf::exit_reason::user_shutdown);
  }
  CHECK(reader()->balance(friend_address)->available.atto == 400'000);
  verify(true);
}

TEST_CASE_FIXTURE(book_fixture, "callers are told of what is on disk, also when the disk fills under load") {
  test::small_disk disk(folder + "/disk", 4 << 20);
  if (disk.missing())
    return;
  options.path = folder + "/disk/ledger.db";
  config cfg{false};
  cfg.set("scheduler.max-threads", 2);
  open();
  fund(200_neuro);
  done(send_neuro{friend_address, {1}, {}, {}});
  std::atomic<int> good{0}, bad{0};
  {
    caf::actor_system system{cfg};
    const auto ledger = spawn_ledger(system, std::move(book), options, true);
    const auto load = [&](int each) {
      std::vector<std::thread> callers;
      for (int i = 0; i < 8; ++i)
        callers.emplace_back([&] {
          caf::scoped_actor self{system};
          for (int n = 0; n < each; ++n)
            self->request(ledger, caf::infinite, send_neuro{friend_address, {1}, std::string(250, 'm'), {}})
                .receive([&](send_result&) { ++good; },
                         [&](caf::error& why) { bad += code_of(why) == errc::storage; });
        });
      for (auto& caller : callers)
        caller.join();
    };
    disk.fill();
    load(300);
    CHECK(good + bad == 8 * 300);
    CHECK(bad > 0);
    CHECK(reader()->balance(friend_address)->available.atto == static_cast<unsigned>(good + 1));
    disk.clear();
    const int refused_before = bad;
    load(20);
    CHECK(bad == refused_before);
    caf::scoped_actor self{system};
    self->request(ledger, caf::infinite, drain_atom_v)
        .receive([] {}, [](caf::error&) { FAIL("not drained"); });
    self->send_exit(ledger, caf::exit_reason::user_shutdown);
  }
  CHECK(reader()->balance(friend_address)->available.atto == static_cast<unsigned>(good + 1));
  verify(true);
}

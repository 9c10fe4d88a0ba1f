#include "actors/supervisor/front.hpp"
#include "actors/supervisor/restart_budget.hpp"
#include "actors/supervisor/supervisor_actor.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;

namespace {

using front_fixture =
    test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                        caf::id_block::neuroshard_rate_limiter, caf::id_block::neuroshard_supervisor>;

caf::behavior counting_limiter(caf::event_based_actor*, uint32_t base) {
  return {
      [base](const admit_request& r) -> caf::result<admit_verdict> {
        if (r.identity.empty())
          return refuse(errc::invalid_request, "no identity");
        admit_verdict v;
        v.remaining = base;
        return v;
      },
  };
}

} // namespace

TEST_CASE_FIXTURE(front_fixture,
                  "a front hands requests on, and replies and errors come back to the sender") {
  auto address = keep(sys.spawn(front, std::string{"rate_limiter"}));
  auto typed = caf::actor_cast<rate_limiter_actor>(address);
  caf::anon_send(address, retarget_atom_v, caf::actor{keep(sys.spawn(counting_limiter, 7U))});
  auto reply = self->request(typed, caf::infinite, admit_request{"a", limit_class::status, false});
  auto error = self->request(typed, caf::infinite, admit_request{"", limit_class::status, false});
  sched.run();
  reply.receive([](const admit_verdict& v) { CHECK(v.remaining == 7); },
                [&](const caf::error& e) { FAIL(sys.render(e)); });
  error.receive([](const admit_verdict&) { FAIL("answered"); },
                [](const caf::error& e) {
                  CHECK(code_of(e) == errc::invalid_request);
                  CHECK(problem_of(e).message == "no identity");
                });
}

TEST_CASE_FIXTURE(front_fixture, "a front without a target answers not_ready, and follows a new target") {
  auto address = keep(sys.spawn(front, std::string{"rate_limiter"}));
  auto typed = caf::actor_cast<rate_limiter_actor>(address);
  auto early = self->request(typed, caf::infinite, admit_request{"a", limit_class::status, false});
  sched.run();
  early.receive([](const admit_verdict&) { FAIL("answered"); },
                [](const caf::error& e) { CHECK(code_of(e) == errc::not_ready); });
  for (uint32_t base : {1U, 2U}) {
    caf::anon_send(address, retarget_atom_v, caf::actor{keep(sys.spawn(counting_limiter, base))});
    auto reply = self->request(typed, caf::infinite, admit_request{"a", limit_class::status, false});
    sched.run();
    reply.receive([&](const admit_verdict& v) { CHECK(v.remaining == base); },
                  [&](const caf::error& e) { FAIL(sys.render(e)); });
  }
}

TEST_CASE("a restart budget gives five restarts a minute") {
  restart_budget budget;
  for (int i = 0; i < 5; ++i)
    CHECK(budget.take(i * 1'000'000));
  CHECK_FALSE(budget.take(59'999'999));
  CHECK(budget.take(60'000'000));
  CHECK_FALSE(budget.take(60'500'000));
}

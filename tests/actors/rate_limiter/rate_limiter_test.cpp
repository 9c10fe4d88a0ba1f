#include "actors/rate_limiter/rate_limiter.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;

namespace {

using fixture = test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                                    caf::id_block::neuroshard_rate_limiter>;

admit_verdict ask(fixture& f, const rate_limiter_actor& actor) {
  admit_verdict verdict;
  auto reply = f.self->request(actor, caf::infinite, admit_request{"me", limit_class::wallet, false});
  f.sched.run();
  reply.receive([&](const admit_verdict& v) { verdict = v; },
                [&](const caf::error& e) { FAIL(f.sys.render(e)); });
  return verdict;
}

} // namespace

TEST_CASE_FIXTURE(fixture,
                  "the rate limiter counts by the clock it was given and takes new limits while running") {
  auto clock = std::make_shared<test::manual_clock>();
  auto actor = keep(sys.spawn(rate_limiter, rate_limits{.wallet = 1}, time_source_ptr{clock}));
  CHECK(ask(*this, actor).allowed);
  CHECK_FALSE(ask(*this, actor).allowed);
  clock->advance_s(60);
  CHECK(ask(*this, actor).allowed);
  auto changed = self->request(actor, caf::infinite, rate_limits{.wallet = 2});
  sched.run();
  changed.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
  CHECK(ask(*this, actor).allowed);
  CHECK_FALSE(ask(*this, actor).allowed);
}

// Weights read of the layer worker and written to it.
#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/gradient_exchanger/unit_weights.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {
constexpr int64_t worker_retry_ms = 200;
constexpr int64_t worker_patience_ms = 60'000; ///< for a checkpoint's snapshot to end
} // namespace

void gradient_exchanger_state::read_weights(reading_ptr what) {
  if (what->until_ms == 0)
    what->until_ms = now_ms() + worker_patience_ms;
  self->request(parts.worker, caf::infinite, open_snapshot{false})
      .then(
          [me = self, what](const snapshot_opened& opened) {
            what->snapshot_id = opened.snapshot_id;
            what->optimizer_step = opened.optimizer_step;
            std::map<std::string, unit_layout> layouts;
            std::vector<std::string> order;
            for (const auto& entry : opened.tensors) {
              const auto unit = unit_of_parameter(entry.name);
              if (unit.empty() || what->none || (!what->units.empty() && !what->units.contains(unit)))
                continue;
              if (!layouts.contains(unit))
                order.push_back(unit);
              layouts[unit].tensors.push_back({entry.name, entry.shape});
            }
            for (const auto& unit : order) {
              auto& tensors = layouts[unit].tensors;
              std::sort(tensors.begin(), tensors.end(),
                        [](const auto& a, const auto& b) { return a.name < b.name; });
              what->plan.emplace_back(unit, std::make_shared<const unit_layout>(std::move(layouts[unit])));
            }
            me->state.read_next(what);
          },
          [me = self, what](caf::error& why) {
            auto& state = me->state;
            if (code_of(why) == errc::overloaded && state.now_ms() < what->until_ms)
              return state.after(worker_retry_ms, [me, what] { me->state.read_weights(what); });
            what->done(std::move(why));
          });
}

void gradient_exchanger_state::read_next(reading_ptr what) {
  if (what->unit == what->plan.size()) {
    // Closed already where everything was read; then there is nothing to close.
    self->request(parts.worker, caf::infinite, close_snapshot{what->snapshot_id})
        .then([what] { what->done(what->optimizer_step); },
              [what](const caf::error&) { what->done(what->optimizer_step); });
    return;
  }
  const auto& [unit, layout] = what->plan[what->unit];
  self->request(parts.worker, caf::infinite,
                read_snapshot{what->snapshot_id, layout->tensors[what->got.size()].name})
      .then(
          [me = self, what](tensor_handle& value) {
            const auto& [unit, layout] = what->plan[what->unit];
            what->got.push_back(std::move(value));
            if (what->got.size() == layout->tensors.size()) {
              what->each(unit, layout, std::exchange(what->got, {}));
              ++what->unit;
            }
            me->state.read_next(what);
          },
          [me = self, what](caf::error& why) {
            me->request(me->state.parts.worker, caf::infinite, close_snapshot{what->snapshot_id})
                .then([] {}, [](const caf::error&) {});
            what->done(std::move(why));
          });
}

void gradient_exchanger_state::write_weights() {
  now_in = phase::writing;
  to_write.clear();
  written = 0;
  write_until_ms = now_ms() + worker_patience_ms;
  for (auto& [name, unit] : units) {
    if (!unit.outcome)
      continue;
    unit.now_at(hash_of_unit(*unit.layout, unit.w), round());
    for (size_t i = 0; i < unit.w.size(); ++i)
      to_write.emplace_back(unit.layout->tensors[i].name,
                            handle_of(unit.layout->tensors[i].shape, std::move(unit.w[i])));
    unit.w.clear();
  }
  write_next();
}

void gradient_exchanger_state::write_next() {
  const auto wrong = [me = self](caf::error& why) {
    auto& state = me->state;
    // A checkpoint reads the weights, and ends soon.
    if (code_of(why) == errc::failed_precondition && state.now_ms() < state.write_until_ms)
      return state.after(worker_retry_ms, [me] { me->state.write_next(); });
    state.fail(std::move(why));
  };
  if (written == to_write.size()) {
    self->request(parts.worker, caf::infinite, finish_load{optimizer_step})
        .then([me = self] { me->state.all_written(); }, wrong);
    return;
  }
  const auto& [name, value] = to_write[written];
  self->request(parts.worker, caf::infinite, write_tensor{name, value})
      .then(
          [me = self] {
            ++me->state.written;
            me->state.write_next();
          },
          wrong);
}

} // namespace neuroshard

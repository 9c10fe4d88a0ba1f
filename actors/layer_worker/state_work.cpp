// Weights: initial values, snapshots for checkpoints, loading, serving copies and their hashes.
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"
#include "actors/layer_worker/layer_worker.hpp"

#include <algorithm>
#include <chrono>
#include <new>
#include <string_view>

namespace neuroshard {

namespace {

constexpr int64_t copied_elements_per_slice = int64_t{2} << 20;
constexpr std::string_view first_moment_prefix = "adam.m/";
constexpr std::string_view second_moment_prefix = "adam.v/";

struct located {
  model::parameter_part part;
  std::string name;
};

located locate(const std::string& name) {
  if (name.starts_with(first_moment_prefix))
    return {model::parameter_part::first_moment, name.substr(first_moment_prefix.size())};
  if (name.starts_with(second_moment_prefix))
    return {model::parameter_part::second_moment, name.substr(second_moment_prefix.size())};
  return {model::parameter_part::weight, name};
}

const model::parameter* find(const model::stage& stage, const std::string& name) {
  for (const auto& unit : stage.units())
    for (const auto& parameter : unit.parameters)
      if (parameter.name == name)
        return &parameter;
  return nullptr;
}

std::shared_ptr<void> host_memory(size_t bytes) {
  static constexpr auto alignment = std::align_val_t{64};
  void* memory = ::operator new(std::max<size_t>(bytes, 1), alignment, std::nothrow);
  if (memory == nullptr)
    return nullptr;
  return {memory, [](void* p) { ::operator delete(p, alignment); }};
}

caf::error busy(const char* reason, const char* message) {
  problem what;
  what.reason = reason;
  what.message = message;
  return refuse(errc::failed_precondition, std::move(what));
}

} // namespace

// ---------------------------------------------------------------------------------------------- weights

model::sliced<caf::error> layer_worker_state::initialize() {
  auto done = co_await stage->initialize(options.seed);
  initializing = false;
  if (!done.ok()) {
    log::error(name, "initialize-failed why={}", done.message());
    co_return refuse(done);
  }
  weights_set = true;
  log::info(name, "initialized seed={} parameters={}", options.seed, stage->parameters());
  co_return caf::error{};
}

layer_worker_state::work<caf::unit_t> layer_worker_state::write(write_tensor request) {
  if (binding.under_way() || view)
    co_return busy("step_under_way", "weights cannot be set while a step or a snapshot is under way");
  const auto where = locate(request.name);
  const auto* parameter = find(*stage, where.name);
  if (parameter == nullptr)
    co_return refuse(errc::not_found, "no tensor " + request.name + " is held here");
  const auto& view_of = request.value.view;
  const std::vector<int64_t> shape(view_of.shape.begin(), view_of.shape.begin() + view_of.rank);
  if (!request.value || view_of.type != kernels::dtype::f32 || shape != parameter->shape ||
      !view_of.contiguous() || !request.value.on_host())
    co_return bad_field("value", "tensor " + request.name + " has the wrong type or shape");
  loading = true;
  for (int64_t first = 0; first < parameter->count; first += copied_elements_per_slice) {
    const auto count = static_cast<size_t>(std::min(copied_elements_per_slice, parameter->count - first));
    auto written =
        stage->write(where.name, where.part, first, std::span(view_of.as<const float>() + first, count));
    if (!written.ok())
      co_return refuse(written);
    co_await model::end_slice{};
  }
  co_return caf::unit;
}

layer_worker_state::work<caf::unit_t> layer_worker_state::finish(finish_load request) {
  if (binding.under_way())
    co_return busy("step_under_way", "weights cannot be set while a step is under way");
  // Memory is not cleared when it is allocated: the first step must not add to what happens to be there.
  if (!weights_set && stage->options().train) {
    const std::vector<float> zeros(static_cast<size_t>(copied_elements_per_slice));
    for (const auto& unit : stage->units())
      for (const auto& parameter : unit.parameters)
        for (int64_t first = 0; first < parameter.count; first += copied_elements_per_slice) {
          const auto count =
              static_cast<size_t>(std::min(copied_elements_per_slice, parameter.count - first));
          auto cleared = stage->write(parameter.name, model::parameter_part::gradient, first,
                                      std::span(zeros).first(count));
          if (!cleared.ok())
            co_return refuse(cleared);
          co_await model::end_slice{};
        }
  }
  stage->set_optimizer_t(request.optimizer_step);
  auto done = co_await stage->refresh_weights();
  if (!done.ok())
    co_return refuse(done);
  loading = false;
  weights_set = true;
  last_commit.reset();
  binding.release(); // who trains these weights binds them
  co_return caf::unit;
}

// -------------------------------------------------------------------------------------------- snapshots

snapshot_opened layer_worker_state::make_view(const open_snapshot& request) {
  snapshot_opened opened;
  opened.snapshot_id = ++snapshots;
  opened.optimizer_step = stage->optimizer_t();
  view.emplace();
  view->id = opened.snapshot_id;
  view->used_us = time->steady_us();
  const bool moments = request.include_optimizer && stage->options().train;
  for (const std::string_view prefix : {std::string_view{}, first_moment_prefix, second_moment_prefix}) {
    if (!prefix.empty() && !moments)
      continue;
    for (const auto& unit : stage->units())
      for (const auto& parameter : unit.parameters) {
        tensor_entry entry;
        entry.name = std::string(prefix) + parameter.name;
        entry.shape = parameter.shape;
        entry.bytes = static_cast<uint64_t>(parameter.count) * sizeof(float);
        view->unread.insert(entry.name);
        opened.tensors.push_back(std::move(entry));
      }
  }
  return opened;
}

caf::result<snapshot_opened> layer_worker_state::on_open_snapshot(const open_snapshot& request) {
  if (draining)
    return refuse(errc::draining, "the layer worker is stopping");
  if (view || !view_waiters.empty())
    return refuse(errc::overloaded, "another snapshot is open");
  if (!committing)
    return make_view(request);
  view_waiters.emplace_back(request, self->make_response_promise<snapshot_opened>());
  return view_waiters.back().second;
}

void layer_worker_state::open_waiting_views() {
  if (view_waiters.empty() || committing || view)
    return;
  auto [request, promise] = std::move(view_waiters.front());
  view_waiters.clear();
  promise.deliver(make_view(request));
}

layer_worker_state::work<tensor_handle> layer_worker_state::copy_tensor(read_snapshot request) {
  if (!view || view->id != request.snapshot_id)
    co_return refuse(errc::not_found, "no such snapshot is open");
  if (!view->unread.contains(request.name))
    co_return refuse(errc::not_found, "the snapshot holds no unread tensor " + request.name);
  if (!stage->holds_masters())
    co_return busy("serves_only", "this node only serves: it keeps no f32 weights");
  const auto where = locate(request.name);
  const auto* parameter = find(*stage, where.name);
  auto memory = host_memory(static_cast<size_t>(parameter->count) * sizeof(float));
  if (!memory)
    co_return refuse(errc::overloaded, "no memory to copy tensor " + request.name);
  auto* values = static_cast<float*>(memory.get());
  for (int64_t first = 0; first < parameter->count; first += copied_elements_per_slice) {
    const auto count = static_cast<size_t>(std::min(copied_elements_per_slice, parameter->count - first));
    auto read = stage->read(where.name, where.part, first, std::span(values + first, count));
    if (!read.ok())
      co_return refuse(read);
    co_await model::end_slice{};
  }
  tensor_handle handle;
  handle.view =
      parameter->shape.size() == 1
          ? kernels::make_tensor(values, kernels::dtype::f32, {parameter->shape[0]})
          : kernels::make_tensor(values, kernels::dtype::f32, {parameter->shape[0], parameter->shape[1]});
  handle.owner = std::move(memory);
  if (view && view->id == request.snapshot_id) {
    view->used_us = time->steady_us();
    view->unread.erase(request.name);
    if (view->unread.empty())
      end_view();
  }
  co_return handle;
}

void layer_worker_state::end_view() {
  view.reset();
  wake(); // a COMMIT may have waited for it
}

// --------------------------------------------------------------------------------------- serving copies

layer_worker_state::work<serving_info> layer_worker_state::make_copy(refresh_serving request) {
  if (!stage->holds_masters()) // nor can the weights have changed since
    co_return copies.newest()->info;
  auto copy = co_await stage->make_serving_copy(request.model_version, true);
  if (!copy.ok())
    co_return refuse(copy.status());
  copies.add(*copy, request.model_version, request.inner_step, time->steady_us());
  const uint64_t id = (*copy)->id();
  // At once, so that the row-major bytes that the hash needs are freed soon.
  self->request(hasher, caf::infinite, hash_copy{*copy})
      .then([me = self, id](std::string& hash) { me->state.copy_hashed(id, std::move(hash)); },
            [me = self, id](caf::error& e) { me->state.copy_hashed(id, std::move(e)); });
  co_return copies.find(id)->info;
}

model::sliced<caf::error> layer_worker_state::let_go() {
  const uint64_t before = stage->planned().total();
  if (view || loading || !stage->holds_masters())
    co_return caf::error{};
  if (auto freed = stage->release_masters(); !freed.ok())
    co_return refuse(freed);
  log::info(name, "serves-only bytes={} freed={}", stage->planned().total(),
            before - stage->planned().total());
  co_return caf::error{};
}

caf::result<std::string> layer_worker_state::on_serving_hash(const serving_hash& request) {
  const auto* record = request.copy_id == 0 ? copies.newest() : copies.find(request.copy_id);
  if (record == nullptr)
    return request.copy_id == 0 ? refuse(errc::not_ready, "there is no serving copy of the weights yet")
                                : refuse(errc::not_found, "no such serving copy is known");
  if (!record->hash.empty())
    return record->hash;
  if (record->hash_failure)
    return *record->hash_failure; // its bytes are gone: it stays unknown
  auto promise = self->make_response_promise<std::string>();
  hash_waiters[record->info.copy_id].push_back(promise);
  return promise;
}

void layer_worker_state::copy_hashed(uint64_t copy_id, caf::expected<std::string> hash) {
  if (!hash)
    log::error(name, "serving-hash-failed copy={} why={}", copy_id, problem_of(hash.error()).message);
  copies.set_hash(copy_id, hash);
  const auto at = hash_waiters.find(copy_id);
  if (at == hash_waiters.end())
    return;
  for (auto& waiter : at->second) {
    if (hash)
      waiter.deliver(*hash);
    else
      waiter.deliver(hash.error());
  }
  hash_waiters.erase(at);
}

caf::result<serving_info> layer_worker_state::on_session_copy(const session_copy& request) const {
  const bool of_new = request.session_id.empty();
  const auto pinned = of_new ? nullptr : stage->session_weights(request.session_id);
  const auto* record = of_new ? copies.newest() : pinned ? copies.find(pinned->id()) : nullptr;
  if (record == nullptr)
    return of_new ? refuse(errc::not_ready, "there is no serving copy of the weights yet")
                  : refuse(errc::not_found, "no such session is held here");
  auto info = record->info;
  info.kv_blocks = stage->kv_blocks_total();
  return info;
}

caf::result<memory_plan_ptr> layer_worker_state::plan() const {
  const auto use = stage->planned();
  memory_plan counted;
  counted.bytes = {{"weights", use.weights}, {"master", use.master},      {"gradients", use.gradients},
                   {"moments", use.moments}, {"serving", use.serving},    {"activations", use.activations},
                   {"kv_pool", use.kv_pool}, {"workspace", use.workspace}};
  counted.total = use.total();
  return memory_plan_ptr{std::make_shared<const memory_plan>(std::move(counted))};
}

} // namespace neuroshard

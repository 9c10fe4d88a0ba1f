#pragma once

#include "actors/layer_worker/layer_worker_actor.hpp"

#include <caf/all.hpp>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace neuroshard::test {

/// A layer worker that does what a test says: each function answers one kind of request; what is not set is
/// refused. `tensors` answers snapshots and takes what is written.
struct worker_script {
  std::function<caf::result<forward_reply>(const forward_request&)> forward;
  std::function<caf::result<backward_reply>(const backward_request&)> backward;
  std::function<caf::result<gradient_sample_ptr>(const sample_gradient&)> sample;
  std::function<caf::result<serving_info>(const session_copy&)> session;
  std::function<caf::result<std::string>(const serving_hash&)> hash;
  std::function<void(const read_snapshot&)> before_read;

  struct held_tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::vector<std::pair<std::string, held_tensor>> tensors; ///< in the order of a snapshot
  uint64_t optimizer_step = 0;
  bool loaded = false;
  uint64_t snapshots_opened = 0;
  std::set<std::string> unread;
  bool snapshot_open = false;

  held_tensor* find(const std::string& name) {
    for (auto& [held, tensor] : tensors)
      if (held == name)
        return &tensor;
    return nullptr;
  }
};
using worker_script_ptr = std::shared_ptr<worker_script>;

inline tensor_handle handle_of(const worker_script::held_tensor& tensor) {
  auto copy = std::make_shared<std::vector<float>>(tensor.values);
  tensor_handle handle;
  handle.view =
      tensor.shape.size() == 1
          ? kernels::make_tensor(copy->data(), kernels::dtype::f32, {tensor.shape[0]})
          : kernels::make_tensor(copy->data(), kernels::dtype::f32, {tensor.shape[0], tensor.shape[1]});
  handle.owner = std::move(copy);
  return handle;
}

inline layer_worker_actor::behavior_type scripted_worker(layer_worker_actor::pointer,
                                                         worker_script_ptr script) {
  const auto unset = [](const char* what) { return refuse(errc::unavailable, what); };
  return {
      [=](const forward_request& r) -> caf::result<forward_reply> {
        return script->forward ? script->forward(r) : caf::result<forward_reply>(unset("forward"));
      },
      [=](const backward_request& r) -> caf::result<backward_reply> {
        return script->backward ? script->backward(r) : caf::result<backward_reply>(unset("backward"));
      },
      [=](const sample_gradient& r) -> caf::result<gradient_sample_ptr> {
        return script->sample ? script->sample(r) : caf::result<gradient_sample_ptr>(unset("sample"));
      },
      [=](const optimizer_settings&) -> caf::result<void> { return caf::unit; },
      [=](const open_snapshot&) -> caf::result<snapshot_opened> {
        snapshot_opened view;
        view.snapshot_id = ++script->snapshots_opened;
        view.optimizer_step = script->optimizer_step;
        for (const auto& [name, tensor] : script->tensors) {
          view.tensors.push_back(
              {name, kernels::dtype::f32, tensor.shape, tensor.values.size() * sizeof(float)});
          script->unread.insert(name);
        }
        script->snapshot_open = true;
        return view;
      },
      [=](const read_snapshot& r) -> caf::result<tensor_handle> {
        if (script->before_read)
          script->before_read(r);
        auto* tensor = script->find(r.name);
        if (tensor == nullptr || !script->snapshot_open)
          return refuse(errc::not_found, "no such tensor");
        script->unread.erase(r.name);
        script->snapshot_open = !script->unread.empty();
        return handle_of(*tensor);
      },
      [=](const close_snapshot&) -> caf::result<void> {
        script->snapshot_open = false;
        script->unread.clear();
        return caf::unit;
      },
      [=](const write_tensor& r) -> caf::result<void> {
        auto* tensor = script->find(r.name);
        if (tensor == nullptr)
          return refuse(errc::not_found, "no such tensor");
        std::memcpy(tensor->values.data(), r.value.view.data, tensor->values.size() * sizeof(float));
        return caf::unit;
      },
      [=](const finish_load& r) -> caf::result<void> {
        script->optimizer_step = r.optimizer_step;
        script->loaded = true;
        return caf::unit;
      },
      [=](const refresh_serving&) -> caf::result<serving_info> { return unset("refresh"); },
      [=](const serving_hash& r) -> caf::result<std::string> {
        return script->hash ? script->hash(r) : caf::result<std::string>(unset("hash"));
      },
      [=](const session_copy& r) -> caf::result<serving_info> {
        return script->session ? script->session(r) : caf::result<serving_info>(unset("session"));
      },
      [](lean_atom) {},
      [=](plan_atom) -> caf::result<memory_plan_ptr> { return unset("plan"); },
      [=](threads_atom, uint32_t) -> caf::result<void> { return caf::unit; },
      [](slice_atom) {},
      [](tick_atom) {},
      [](drain_atom) -> caf::result<void> { return caf::unit; },
      [](status_atom) -> actor_status { return {}; },
  };
}

} // namespace neuroshard::test

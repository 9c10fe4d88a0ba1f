#pragma once

#include "kernels/core/backend.hpp"

#include <memory>

namespace neuroshard {

/// A tensor as it travels between actors and gateways: a view and a share in whatever owns the bytes (device
/// memory, a received message, a mapped file). Immutable once sent; copying a handle copies no element.
struct tensor_handle {
  kernels::tensor view;                  ///< in the address space of `device`, or of the host
  std::shared_ptr<const void> owner;     ///< keeps the bytes alive
  kernels::device_ptr device;            ///< null: host memory
  std::shared_ptr<kernels::event> ready; ///< null: the bytes are there; else they are once it is done

  explicit operator bool() const noexcept { return static_cast<bool>(view); }
  bool on_host() const noexcept { return device == nullptr || device->info().host_visible; }
};

} // namespace neuroshard

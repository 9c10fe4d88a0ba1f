#pragma once

#include <array>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <new>
#include <optional>
#include <utility>

/// Long work in short slices: a coroutine that gives the thread back after each few milliseconds of work, so
/// that its owner can put a decode step between two slices of a training step. Plain C++20; no scheduler is
/// hidden here.
///
///     auto work = stage.forward_train(std::move(input));
///     while (!work.resume())
///       serve_what_is_urgent();
///     auto report = work.take();
namespace neuroshard::model {

namespace detail {

/// Coroutine frames, recycled per thread in power-of-two classes: a block's coroutine starts many times in a
/// training step, and steady work shall not allocate.
class frame_pool {
public:
  static void* take(size_t bytes);
  static void give(void* frame, size_t bytes) noexcept;

private:
  static constexpr size_t classes = 8; ///< 256 bytes ... 32 KiB; larger frames go to the heap
  struct cell {
    cell* next;
  };
  std::array<cell*, classes> free_{};

  static frame_pool& mine();
  static size_t class_of(size_t bytes) noexcept;
  ~frame_pool();
};

struct promise_base {
  promise_base* root = this;            ///< the outermost coroutine of the nest
  std::coroutine_handle<> leaf;         ///< root only: where the next slice starts
  std::coroutine_handle<> continuation; ///< who awaits this one; none for the root

  static void* operator new(size_t bytes) { return frame_pool::take(bytes); }
  static void operator delete(void* frame, size_t bytes) noexcept { frame_pool::give(frame, bytes); }

  std::suspend_always initial_suspend() const noexcept { return {}; }
  void unhandled_exception() const noexcept { std::terminate(); } // nothing below throws but a bug
};

struct final_awaiter {
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
    const auto next = ended.promise().continuation;
    return next ? next : std::noop_coroutine();
  }
  void await_resume() const noexcept {}
};

} // namespace detail

/// `co_await end_slice{}` ends a slice: the thread goes back to whoever called resume() on the outermost
/// coroutine.
struct end_slice {
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> here) const noexcept {
    here.promise().root->leaf = here;
  }
  void await_resume() const noexcept {}
};

/// Work that is done slice by slice and ends in a T (a status or a result<...>). Starts suspended. Destroying
/// it before it is done cancels it: everything its coroutines hold is released. Used by one thread at a time.
/// Inside another sliced coroutine, `co_await` runs it as part of that one, slices and all.
template <class T>
class [[nodiscard]] sliced {
public:
  struct promise_type : detail::promise_base {
    std::optional<T> value;
    sliced get_return_object() { return sliced{std::coroutine_handle<promise_type>::from_promise(*this)}; }
    detail::final_awaiter final_suspend() const noexcept { return {}; }
    template <class U>
    void return_value(U&& v) {
      value.emplace(std::forward<U>(v));
    }
  };

  sliced() noexcept = default;
  sliced(sliced&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  sliced& operator=(sliced&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~sliced() { reset(); }

  /// False for a moved-from or default one.
  explicit operator bool() const noexcept { return static_cast<bool>(handle_); }
  /// True once take() may be called.
  bool done() const noexcept { return handle_.done(); }
  /// Runs one slice; true when the work is done. Does nothing when it already was.
  bool resume() {
    if (handle_.done())
      return true;
    auto& promise = handle_.promise();
    if (promise.leaf)
      std::exchange(promise.leaf, nullptr).resume();
    else
      handle_.resume();
    return handle_.done();
  }
  /// What the work ended in. Precondition: done(); once.
  T take() { return std::move(*handle_.promise().value); }
  /// All slices at once.
  T run() {
    while (!resume()) {
    }
    return take();
  }
  /// Cancels what is not done and forgets it.
  void reset() noexcept {
    if (handle_)
      std::exchange(handle_, nullptr).destroy();
  }

  auto operator co_await() && noexcept { return awaiter{handle_}; }

private:
  struct awaiter {
    std::coroutine_handle<promise_type> child;
    bool await_ready() const noexcept { return child.done(); }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> parent) noexcept {
      child.promise().root = parent.promise().root;
      child.promise().continuation = parent;
      return child;
    }
    T await_resume() { return std::move(*child.promise().value); }
  };
  explicit sliced(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

/// Ends a coroutine that returns a status or a result when `expr` (which may hold a co_await) failed.
#define NEUROSHARD_CO_TRY(expr)                                                                              \
  do {                                                                                                       \
    if (::neuroshard::kernels::status neuroshard_co_status = (expr); !neuroshard_co_status.ok())             \
      co_return neuroshard_co_status;                                                                        \
  } while (false)

} // namespace neuroshard::model

#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

namespace neuroshard::http {

/// A coroutine that starts when it is awaited (or by `start`) and belongs to whoever holds the task:
/// destroying the task destroys the frame and all frames it waits for. Runs on the thread that resumes it,
/// which for handlers is always the connection's lane.
template <class T>
class task {
public:
  struct promise_type {
    std::optional<T> value;
    std::exception_ptr failure;
    std::coroutine_handle<> then;
    void (*on_done)(void*) =
        nullptr; ///< for the outermost task: called at its end, must not destroy the frame
    void* context = nullptr;

    task get_return_object() { return task(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct last {
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> ended) noexcept {
        auto& promise = ended.promise();
        if (promise.then)
          return promise.then;
        if (promise.on_done)
          promise.on_done(promise.context);
        return std::noop_coroutine();
      }
      void await_resume() noexcept {}
    };
    last final_suspend() noexcept { return {}; }
    void return_value(T v) { value.emplace(std::move(v)); }
    void unhandled_exception() noexcept { failure = std::current_exception(); }
  };

  task() = default;
  task(task&& other) noexcept : frame_(std::exchange(other.frame_, {})) {}
  task& operator=(task&& other) noexcept {
    if (this != &other) {
      reset();
      frame_ = std::exchange(other.frame_, {});
    }
    return *this;
  }
  ~task() { reset(); }
  void reset() {
    if (auto frame = std::exchange(frame_, {}))
      frame.destroy();
  }

  /// Runs to the first suspension. True when it ended already; otherwise `on_done` is called at its end.
  bool start(void (*on_done)(void*), void* context) {
    frame_.resume();
    if (frame_.done())
      return true;
    frame_.promise().on_done = on_done;
    frame_.promise().context = context;
    return false;
  }
  /// The value of a task that has ended; rethrows what left it.
  T take() {
    auto& promise = frame_.promise();
    if (promise.failure)
      std::rethrow_exception(promise.failure);
    return std::move(*promise.value);
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiting) noexcept {
    frame_.promise().then = waiting;
    return frame_;
  }
  T await_resume() { return take(); }

private:
  explicit task(std::coroutine_handle<promise_type> frame) : frame_(frame) {}
  std::coroutine_handle<promise_type> frame_;
};

/// Where one coroutine waits for any of several events, all of which happen on its lane. Shared with whoever
/// may wake it, so that a late event finds nobody instead of a destroyed frame.
struct waker {
  std::coroutine_handle<> waiting;
  void wake() {
    if (auto frame = std::exchange(waiting, {}))
      frame.resume();
  }
};

/// `co_await until_woken{w}`: suspends until w.wake().
struct until_woken {
  waker& at;
  explicit until_woken(waker& w) : at(w) {}
  until_woken(const until_woken&) = delete;
  ~until_woken() { at.waiting = {}; }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> frame) noexcept { at.waiting = frame; }
  void await_resume() const noexcept {}
};

} // namespace neuroshard::http

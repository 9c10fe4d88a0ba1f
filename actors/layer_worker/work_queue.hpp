#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace neuroshard {

/// Kinds of work in the order of their urgency.
enum class work_class : uint8_t { decode = 0, prefill = 1, backward = 2, forward = 3, bulk = 4 };
inline constexpr size_t work_classes = 5;

/// Waiting work of one device: the most urgent class first, first come first served inside a class, bounded.
/// Plain logic, used by one thread. Limits (spec network.md section 4): from 90 % of the capacity on no
/// training work is taken, from 99 % on nothing.
template <class Job>
class work_queue {
public:
  explicit work_queue(size_t capacity = 100) : capacity_(capacity) {}

  /// Whether another job of this class may come in.
  bool admits(work_class of) const noexcept {
    const bool training = of == work_class::backward || of == work_class::forward;
    return size_ * 100 < capacity_ * (training ? 90 : 99);
  }
  /// `deadline_us` 0: none. Precondition: admits(of), or the job is the owner's own.
  void push(work_class of, int64_t deadline_us, Job job) {
    waiting_[static_cast<size_t>(of)].push_back({deadline_us, std::move(job)});
    ++size_;
  }
  /// The class of the job that `pop` with the same predicate would take.
  template <class Allowed>
  std::optional<work_class> most_urgent(Allowed allowed) const {
    for (size_t i = 0; i < work_classes; ++i)
      for (const auto& entry : waiting_[i])
        if (allowed(entry.job))
          return static_cast<work_class>(i);
    return std::nullopt;
  }
  /// Takes the oldest allowed job of one class.
  template <class Allowed>
  std::optional<Job> pop(work_class of, Allowed allowed) {
    auto& line = waiting_[static_cast<size_t>(of)];
    for (auto at = line.begin(); at != line.end(); ++at) {
      if (!allowed(at->job))
        continue;
      std::optional<Job> job(std::move(at->job));
      line.erase(at);
      --size_;
      return job;
    }
    return std::nullopt;
  }
  /// Takes out the jobs whose deadline has passed.
  std::vector<Job> expire(int64_t now_us) {
    return take([now_us](const entry& e) { return e.deadline_us != 0 && e.deadline_us <= now_us; });
  }
  /// Takes out all jobs for which `wanted` holds.
  template <class Wanted>
  std::vector<Job> remove(Wanted wanted) {
    return take([&wanted](const entry& e) { return wanted(e.job); });
  }

  size_t size() const noexcept { return size_; }
  size_t size(work_class of) const noexcept { return waiting_[static_cast<size_t>(of)].size(); }
  size_t capacity() const noexcept { return capacity_; }

private:
  struct entry {
    int64_t deadline_us;
    Job job;
  };
  template <class Chosen>
  std::vector<Job> take(Chosen chosen) {
    std::vector<Job> taken;
    for (auto& line : waiting_) {
      for (auto at = line.begin(); at != line.end();) {
        if (!chosen(*at)) {
          ++at;
          continue;
        }
        taken.push_back(std::move(at->job));
        at = line.erase(at);
        --size_;
      }
    }
    return taken;
  }

  size_t capacity_;
  size_t size_ = 0;
  std::array<std::deque<entry>, work_classes> waiting_;
};

} // namespace neuroshard

#include "kernels/text/mirror.hpp"

#include "kernels/text/mirror_cache.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
using clock = std::chrono::steady_clock;
using mapping = std::shared_ptr<const mapped_file>;

constexpr size_t nowhere = SIZE_MAX;
constexpr uint32_t failing_after = 3; // tries; then nobody waits for a shard any more

struct attempt {
  uint32_t failures = 0;
  clock::time_point again{};
  std::string why;
};

// A training shard: what the manifest says of it, and what of it is here.
struct slot {
  shard_entry entry;
  uint64_t tail = 0; // tokens at its end that are held out
  mapping file;
  mapping tail_file;
  uint64_t used = 0; // when it was last read: the least goes first
  attempt tries;
};

struct job {
  enum class kind { held_out, shard, tail };
  kind what;
  size_t place = 0;
};

} // namespace

struct shard_mirror::state {
  options how;
  std::string shown; // the URL without credentials
  held_out_plan plan;
  std::vector<uint64_t> ids;
  uint64_t bytes_max = 0; // of a shard
  size_t room = 1;
  std::function<bool()> cancelled;
  std::atomic<bool> ending{false};

  std::mutex guard; // of everything below
  std::condition_variable changed;
  uint64_t version = 0; // counts changes of `current`
  size_t current = nowhere;
  uint64_t stamp = 0;
  std::vector<slot> slots;
  mapping held_file;
  attempt held_tries;
  token_view held_view;
  std::thread worker;

  std::string path_of(const shard_entry& entry) const {
    return how.directory + "/" + shard_file_name(entry.id);
  }
  std::string url_of(const std::string& file) const { return how.url + "/" + file; }
  void tell(const std::string& line) const {
    if (how.tell)
      how.tell(line);
  }

  status load(const progress& watch);
  std::optional<job> pick(clock::time_point now, clock::time_point& next);
  status perform(const job& what);
  status get_held_out();
  status get_shard(size_t place);
  status get_tail(size_t place);
  void make_room(size_t place);
  bool soon(size_t place) const { return (place + slots.size() - current) % slots.size() < room; }
  void hold_tail(slot& s, mapping file);
  void note(attempt& tries, const status& outcome, clock::time_point now, const std::string& file);
  bool step(clock::time_point now, clock::time_point& next);
  void work();
};

// What an earlier run has left. Called before there is a thread.
status shard_mirror::state::load(const progress& watch) {
  std::vector<std::string> wanted;
  for (const slot& s : slots) {
    wanted.push_back(shard_file_name(s.entry.id));
    if (s.tail > 0)
      wanted.push_back(tail_file_name(s.entry.id));
  }
  if (plan.whole)
    wanted.push_back(plan.file);
  auto found = clean_cache(how.directory, wanted);
  if (!found)
    return found.status();
  const auto is_here = [&](const std::string& file) {
    return std::find(found->begin(), found->end(), file) != found->end();
  };
  const auto checked = [&](const std::string& file, const shard_entry& entry) -> mapping {
    if (!is_here(file))
      return nullptr;
    auto mapped = map_shard(how.directory + "/" + file, entry, how.vocab_size);
    if (mapped)
      return *mapped;
    tell(mapped.status().message() + "; it is fetched again");
    remove_file(how.directory + "/" + file);
    return nullptr;
  };
  if (plan.whole && (held_file = checked(plan.file, *plan.whole)) != nullptr)
    held_view.append(tokens_of(*held_file));
  for (size_t i = 0; i < slots.size(); ++i) {
    if (watch.cancelled())
      return {code::unavailable, "cancelled"};
    watch("check-shards", static_cast<double>(i) / static_cast<double>(slots.size()));
    slot& s = slots[i];
    s.file = checked(shard_file_name(s.entry.id), s.entry);
    if (s.file)
      s.used = ++stamp;
    if (s.tail > 0 && is_here(tail_file_name(s.entry.id)))
      if (auto tail = load_tail(how.directory, s.entry, s.tail, how.vocab_size))
        hold_tail(s, std::move(*tail));
  }
  return {};
}

// What to fetch now; or when to look again.
std::optional<job> shard_mirror::state::pick(clock::time_point now, clock::time_point& next) {
  const auto due = [&](const attempt& tries) {
    if (tries.again <= now)
      return true;
    next = std::min(next, tries.again);
    return false;
  };
  if (plan.whole && !held_file && due(held_tries))
    return job{job::kind::held_out};
  if (current == nowhere)
    return std::nullopt;
  for (size_t k = 0; k < room; ++k) {
    const size_t place = (current + k) % slots.size();
    if (!slots[place].file && due(slots[place].tries))
      return job{job::kind::shard, place};
  }
  for (size_t place = 0; place < slots.size(); ++place)
    if (slots[place].tail > 0 && !slots[place].tail_file && due(slots[place].tries))
      return job{job::kind::tail, place};
  return std::nullopt;
}

status shard_mirror::state::perform(const job& what) {
  try {
    switch (what.what) {
    case job::kind::held_out:
      return get_held_out();
    case job::kind::shard:
      return get_shard(what.place);
    case job::kind::tail:
      return get_tail(what.place);
    }
  } catch (const std::bad_alloc&) {
    return {code::out_of_memory, "no memory to fetch a shard"};
  } catch (const std::exception& problem) {
    return {code::internal, std::string("fetching a shard: ") + problem.what()};
  }
  return {};
}

status shard_mirror::state::get_held_out() {
  auto file = fetch_shard(*how.from, url_of(plan.file), how.directory + "/" + plan.file, *plan.whole,
                          how.vocab_size, cancelled);
  if (!file)
    return file.status();
  const std::lock_guard hold(guard);
  held_file = std::move(*file);
  held_view.append(tokens_of(*held_file));
  return {};
}

status shard_mirror::state::get_shard(size_t place) {
  make_room(place);
  slot& s = slots[place]; // its entry never changes
  auto file = fetch_shard(*how.from, url_of(shard_file_name(s.entry.id)), path_of(s.entry), s.entry,
                          how.vocab_size, cancelled);
  if (!file)
    return file.status();
  const std::lock_guard hold(guard);
  s.file = std::move(*file);
  s.used = ++stamp;
  return {};
}

status shard_mirror::state::get_tail(size_t place) {
  slot& s = slots[place];
  mapping file;
  {
    const std::lock_guard hold(guard);
    file = s.file;
  }
  std::vector<token_id> fetched;
  std::span<const token_id> tail;
  if (file) {
    tail = tokens_of(*file).last(s.tail);
  } else {
    auto got = fetch_tail(*how.from, url_of(shard_file_name(s.entry.id)), s.entry, s.tail, how.vocab_size,
                          cancelled);
    if (!got)
      return got.status();
    fetched = std::move(*got);
    tail = fetched;
  }
  NEUROSHARD_TRY(save_tail(how.directory, s.entry, tail));
  auto kept = load_tail(how.directory, s.entry, s.tail, how.vocab_size);
  if (!kept)
    return kept.status();
  const std::lock_guard hold(guard);
  hold_tail(s, std::move(*kept));
  return {};
}

// With the last one the held-out tokens are complete: all tails in the order of ids.
void shard_mirror::state::hold_tail(slot& s, mapping file) {
  s.tail_file = std::move(file);
  for (const slot& each : slots)
    if (each.tail > 0 && !each.tail_file)
      return;
  for (const slot& each : slots)
    if (each.tail > 0)
      held_view.append(tail_of(*each.tail_file));
}

// Removes what nobody waits for, the least recently used first, until the shard at `place` has room. What has
// arrived of a shard that broke off has room of its own as long as it is wanted soon.
void shard_mirror::state::make_room(size_t place) {
  const std::lock_guard hold(guard);
  for (;;) {
    size_t taken = 0;
    slot* oldest = nullptr;
    for (size_t i = 0; i < slots.size(); ++i) {
      slot& s = slots[i];
      if (i == place || (!s.file && !soon(i)))
        continue;
      taken += s.file || s.tries.failures > 0 ? 1 : 0;
      if (s.file && !soon(i) && (oldest == nullptr || s.used < oldest->used))
        oldest = &s;
    }
    if (taken < room || oldest == nullptr)
      break;
    remove_file(path_of(oldest->entry));
    oldest->file.reset(); // whoever reads it keeps the mapping
  }
  for (size_t i = 0; i < slots.size(); ++i)
    if (!slots[i].file && !soon(i))
      remove_file(path_of(slots[i].entry) + ".part");
}

void shard_mirror::state::note(attempt& tries, const status& outcome, clock::time_point now,
                               const std::string& file) {
  if (outcome) {
    if (tries.failures > 0)
      tell(shown_url(url_of(file)) + ": has been fetched");
    tries = {};
    return;
  }
  if (cancelled())
    return;
  const bool news = ++tries.failures <= failing_after || tries.why != outcome.message();
  tries.why = outcome.message();
  tries.again = now + how.delays.after(tries.failures);
  if (news)
    tell(tries.why + "; tried again");
}

bool shard_mirror::state::step(clock::time_point now, clock::time_point& next) {
  std::optional<job> what;
  {
    const std::lock_guard hold(guard);
    what = pick(now, next);
  }
  if (!what || cancelled())
    return false;
  const status outcome = perform(*what);
  const std::lock_guard hold(guard);
  const bool held = what->what == job::kind::held_out;
  // A try may have taken long: the next one is counted from its end.
  const auto ended = worker.joinable() ? std::max(now, clock::now()) : now;
  note(held ? held_tries : slots[what->place].tries, outcome, ended,
       held ? plan.file : shard_file_name(slots[what->place].entry.id));
  return true;
}

void shard_mirror::state::work() {
  std::unique_lock hold(guard);
  while (!cancelled()) {
    const uint64_t seen = version;
    auto next = clock::time_point::max();
    hold.unlock();
    const bool did = step(clock::now(), next);
    hold.lock();
    if (did)
      continue;
    const auto woken = [&] { return ending || version != seen; };
    if (next == clock::time_point::max())
      changed.wait(hold, woken);
    else
      changed.wait_until(hold, next, woken);
  }
}

// ------------------------------------------------------------------------------------------ the source

shard_mirror::shard_mirror(std::unique_ptr<state> held) : state_(std::move(held)) {}

shard_mirror::~shard_mirror() {
  {
    const std::lock_guard hold(state_->guard);
    state_->ending = true;
  }
  state_->changed.notify_all();
  if (state_->worker.joinable())
    state_->worker.join();
}

result<std::shared_ptr<shard_mirror>> shard_mirror::open(options how, const progress& watch) {
  auto planned = plan_held_out(how.manifest);
  auto made = std::make_unique<state>();
  state& s = *made;
  s.plan = std::move(planned);
  s.how = std::move(how);
  s.cancelled = [&s] { return s.ending || (s.how.cancelled && s.how.cancelled()); };
  const std::string& shown = s.shown = shown_url(s.how.url);
  uint64_t held_bytes = s.plan.whole ? s.plan.whole->tokens * sizeof(token_id) : 0;
  if (held_bytes > std::max(s.how.storage_bytes_max, shard_tokens_full * sizeof(token_id)))
    return status{code::invalid_argument, shown + "/" + s.plan.file + ": its " + std::to_string(held_bytes) +
                                              " bytes are more than data.max_storage_mb allows"};
  for (const shard_entry& entry : s.plan.training) {
    if (entry.tokens > shard_tokens_full)
      return status{code::invalid_argument, shown + "/manifest.json: shard " + std::to_string(entry.id) +
                                                " has " + std::to_string(entry.tokens) +
                                                " tokens, a shard has at most " +
                                                std::to_string(shard_tokens_full)};
    slot one;
    one.entry = entry;
    one.tail = s.plan.whole ? 0 : tail_tokens(entry.tokens, s.how.held_out);
    held_bytes += one.tail > 0 ? tail_file_bytes(one.tail) : 0;
    s.bytes_max = std::max(s.bytes_max, entry.tokens * sizeof(token_id));
    s.ids.push_back(entry.id);
    s.slots.push_back(std::move(one));
  }
  if (s.slots.empty())
    return status{code::invalid_argument, shown + "/manifest.json: has no training shard"};
  const uint64_t left = s.how.storage_bytes_max - std::min(held_bytes, s.how.storage_bytes_max);
  s.room = std::clamp<uint64_t>(left / s.bytes_max, 1, s.slots.size());
  NEUROSHARD_TRY(s.load(watch));
  return std::shared_ptr<shard_mirror>(new shard_mirror(std::move(made)));
}

void shard_mirror::start() {
  const std::lock_guard hold(state_->guard);
  state_->worker = std::thread([s = state_.get()] { s->work(); });
}

bool shard_mirror::work_once(clock::time_point now) {
  auto next = clock::time_point::max();
  return state_->step(now, next);
}

const std::string& shard_mirror::name() const noexcept {
  return state_->shown;
}

std::span<const uint64_t> shard_mirror::training_ids() const noexcept {
  return state_->ids;
}

uint64_t shard_mirror::training_size(size_t place) const noexcept {
  const slot& s = state_->slots[place];
  return s.entry.tokens - s.tail;
}

uint64_t shard_mirror::shard_bytes_max() const noexcept {
  return state_->bytes_max;
}

size_t shard_mirror::room() const noexcept {
  return state_->room;
}

result<shard_lease> shard_mirror::lease(size_t place) const {
  const std::lock_guard hold(state_->guard);
  slot& s = state_->slots[place];
  if (s.file) {
    s.used = ++state_->stamp;
    return shard_lease{tokens_of(*s.file).first(s.entry.tokens - s.tail), s.file};
  }
  const std::string what = "shard " + std::to_string(s.entry.id) + " of " + state_->shown;
  return status{code::unavailable,
                s.tries.failures == 0 ? what + " is being fetched" : what + " is not here: " + s.tries.why};
}

shard_presence shard_mirror::presence(size_t place) const {
  const std::lock_guard hold(state_->guard);
  const slot& s = state_->slots[place];
  if (s.file)
    return shard_presence::here;
  return s.tries.failures >= failing_after ? shard_presence::failing : shard_presence::coming;
}

void shard_mirror::expect(size_t place) const {
  {
    const std::lock_guard hold(state_->guard);
    if (state_->current == place)
      return;
    state_->current = place;
    ++state_->version;
  }
  state_->changed.notify_all();
}

token_view shard_mirror::held_out() const {
  const std::lock_guard hold(state_->guard);
  return state_->held_view;
}

} // namespace neuroshard::text

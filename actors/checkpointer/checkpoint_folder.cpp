#include "actors/checkpointer/checkpoint_folder.hpp"

#include "actors/checkpointer/checkpoint_reader.hpp"
#include "actors/checkpointer/checkpoint_writer.hpp"
#include "actors/common/log.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <tuple>

namespace neuroshard {

namespace {

namespace fs = std::filesystem;
constexpr int damaged_max = 1000;

/// The manifest of a checkpoint, as far as pruning needs it; nothing when it cannot be read.
std::optional<stored_checkpoint> look_at(const std::string& folder, const folder_entry& entry,
                                         const model::architecture& of, const std::string& tokenizer) {
  const auto reader = checkpoint_reader::open(folder + "/" + entry.id);
  if (!reader.ok() || reader->manifest().architecture != of || reader->manifest().tokenizer_hash != tokenizer)
    return std::nullopt;
  const auto& state = reader->manifest().state;
  return stored_checkpoint{entry.id, entry.inner_step, reader->manifest().created_unix_us, reader->bytes(),
                           state.inner_step == state.round_first_step};
}

} // namespace

std::vector<folder_entry> list_folder(const std::string& folder) {
  std::vector<folder_entry> found;
  std::set<std::string> unreadable;
  uint64_t newest_line = 0;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    auto name = at->path().filename().string();
    const auto step = step_of_name(name);
    if (!step || at->symlink_status(ignored).type() != fs::file_type::directory)
      continue;
    const auto reader = checkpoint_reader::open(folder + "/" + name);
    found.push_back({std::move(name), *step, reader.ok() ? reader->manifest().state.taken_over : 0});
    newest_line = std::max(newest_line, found.back().line);
    if (!reader.ok())
      unreadable.insert(found.back().id);
  }
  for (auto& entry : found) // so that it is looked at, and set aside
    if (unreadable.contains(entry.id))
      entry.line = newest_line;
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::tuple(a.line, a.inner_step, b.id) > std::tuple(b.line, b.inner_step, a.id);
  });
  return found;
}

size_t remove_unfinished(const std::string& folder) {
  std::vector<std::string> leftovers;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (at->path().filename().string().starts_with(unfinished_prefix))
      leftovers.push_back(at->path().string());
  size_t removed = 0;
  for (const auto& path : leftovers) {
    const auto outcome = remove_tree(path);
    if (outcome.ok())
      ++removed;
    else
      log::warn("checkpointer", "leftover-stays path={} why={}", path, outcome.message());
  }
  return removed;
}

kernels::result<std::string> set_aside(const std::string& folder, const std::string& id) {
  std::error_code error;
  for (int i = 1; i < damaged_max; ++i) {
    const auto name = id + ".damaged" + (i == 1 ? "" : "." + std::to_string(i));
    if (fs::exists(fs::symlink_status(folder + "/" + name, error)))
      continue;
    fs::rename(folder + "/" + id, folder + "/" + name, error);
    if (error)
      return kernels::status(kernels::code::io, "cannot rename " + id + ": " + error.message());
    NEUROSHARD_TRY(sync_directory(folder));
    return name;
  }
  return kernels::status(kernels::code::io, "too many damaged checkpoints of the name " + id);
}

std::vector<std::string> prune_folder(const std::string& folder, const model::architecture& of,
                                      const std::string& tokenizer, prune_policy policy,
                                      int64_t now_unix_us) {
  std::vector<stored_checkpoint> stored;
  uint64_t bytes = 0;
  for (const auto& entry : list_folder(folder))
    if (auto known = look_at(folder, entry, of, tokenizer)) {
      bytes += known->bytes;
      stored.push_back(std::move(*known));
    }
  if (policy.storage_bytes == 0) {
    std::error_code error;
    const auto disk = fs::space(folder, error);
    if (!error)
      policy.storage_bytes = std::max<uint64_t>(1, (disk.available + bytes) / 10);
  }
  std::vector<std::string> removed;
  for (auto& id : plan_pruning(stored, policy, now_unix_us)) {
    // Out of sight first: a half-removed directory must not look like a damaged checkpoint.
    const auto hidden = folder + "/" + std::string(unfinished_prefix) + "old-" + id;
    std::error_code error;
    fs::rename(folder + "/" + id, hidden, error);
    if (auto outcome = error ? kernels::status(kernels::code::io, error.message()) : remove_tree(hidden);
        !outcome.ok()) {
      log::warn("checkpointer", "prune-failed id={} why={}", id, outcome.message());
      continue;
    }
    removed.push_back(std::move(id));
  }
  return removed;
}

} // namespace neuroshard

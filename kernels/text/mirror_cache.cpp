#include "kernels/text/mirror_cache.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <unistd.h>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
namespace fs = std::filesystem;

constexpr size_t tail_header = 2 * sizeof(kernels::digest);

std::string_view as_text(const kernels::digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

} // namespace

held_out_plan plan_held_out(const shard_manifest& manifest) {
  held_out_plan made;
  made.training = manifest.shards;
  if (manifest.heldout) {
    made.whole = manifest.heldout;
    made.file = "heldout.bin";
  } else if (made.training.size() >= mirror_shards_for_holdout) {
    made.whole = made.training.back();
    made.file = shard_file_name(made.whole->id);
    made.training.pop_back();
  }
  return made;
}

std::string tail_file_name(uint64_t id) {
  return "tail_" + std::to_string(id) + ".bin";
}

uint64_t tail_file_bytes(uint64_t tokens) {
  return tail_header + tokens * sizeof(token_id);
}

status save_tail(const std::string& directory, const shard_entry& of, std::span<const token_id> tail) {
  auto file = atomic_file::make(directory + "/" + tail_file_name(of.id));
  if (!file)
    return file.status();
  const auto own = kernels::sha256().update(tail.data(), tail.size_bytes()).finish();
  std::string shard;
  for (size_t i = 0; i < of.sha256.size(); i += 2)
    shard.push_back(static_cast<char>(std::stoi(of.sha256.substr(i, 2), nullptr, 16)));
  NEUROSHARD_TRY(file->write(shard));
  NEUROSHARD_TRY(file->write(as_text(own)));
  NEUROSHARD_TRY(file->write(tail.data(), tail.size_bytes()));
  return file->commit();
}

result<std::shared_ptr<const mapped_file>> load_tail(const std::string& directory, const shard_entry& of,
                                                     uint64_t tokens, uint32_t vocab_size) {
  const std::string path = directory + "/" + tail_file_name(of.id);
  auto file = mapped_file::open(path);
  if (!file)
    return file.status();
  const auto bytes = (*file)->bytes();
  const status damaged{code::corrupt, path + ": is not the held-out part of its shard"};
  if (bytes.size() != tail_file_bytes(tokens))
    return damaged;
  kernels::digest shard{}, own{};
  std::copy_n(bytes.begin(), shard.size(), shard.begin());
  std::copy_n(bytes.begin() + shard.size(), own.size(), own.begin());
  const auto tail = tail_of(**file);
  if (kernels::to_hex(shard) != of.sha256 ||
      kernels::sha256().update(tail.data(), tail.size_bytes()).finish() != own ||
      std::any_of(tail.begin(), tail.end(), [&](token_id id) { return id >= vocab_size; }))
    return damaged;
  return file;
}

std::span<const token_id> tail_of(const mapped_file& tail) {
  return tokens_of(tail).subspan(tail_header / sizeof(token_id));
}

result<std::vector<std::string>> clean_cache(const std::string& directory,
                                             const std::vector<std::string>& wanted) {
  std::error_code problem;
  fs::create_directories(directory, problem);
  if (problem)
    return file_error(directory, "cannot be made", problem.value());
  remove_file(directory + "/manifest.json");
  const std::set<std::string> known(wanted.begin(), wanted.end());
  std::vector<std::string> names; // first all of them: removing while listing may skip entries
  for (fs::directory_iterator at(directory, problem), end; !problem && at != end; at.increment(problem))
    names.push_back(at->path().filename().string());
  if (problem)
    return file_error(directory, "cannot be read", problem.value());
  std::vector<std::string> here;
  for (const std::string& name : names) {
    const bool ours = name.starts_with("shard_") || name.starts_with("tail_") ||
                      name.starts_with("heldout.bin") || name.starts_with("tokens.tmp");
    const bool part = name.ends_with(".part") && known.contains(name.substr(0, name.size() - 5));
    if (known.contains(name))
      here.push_back(name);
    else if (ours && !part)
      remove_file(directory + "/" + name);
  }
  return here;
}

void remove_file(const std::string& path) {
  ::unlink(path.c_str());
}

} // namespace neuroshard::text

#include "actors/checkpointer/checkpoint_tool.hpp"

#include "actors/checkpointer/checkpoint_folder.hpp"
#include "actors/checkpointer/checkpoint_reader.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iostream>

namespace neuroshard {

namespace {

namespace fs = std::filesystem;

constexpr int exit_usage = 1;
constexpr int exit_damaged = 3;

std::string utc(int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm parts{};
  char text[32] = "?";
  if (::gmtime_r(&seconds, &parts) != nullptr)
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// The checkpoints that a path stands for, newest first in each folder.
std::vector<std::string> checkpoints_of(const fs::path& path) {
  if (step_of_name(path.filename().string()))
    return {path.string()};
  std::vector<std::string> found;
  for (const auto& entry : list_folder(path.string()))
    found.push_back((path / entry.id).string());
  if (!found.empty())
    return found;
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error))
    if (at->is_directory(error))
      folders.push_back(at->path());
  std::sort(folders.begin(), folders.end());
  for (const auto& folder : folders)
    for (const auto& entry : list_folder(folder.string()))
      found.push_back((folder / entry.id).string());
  return found;
}

void print(std::ostream& out, const std::string& path, const checkpoint_reader& reader) {
  const auto& manifest = reader.manifest();
  out << path << " step=" << manifest.state.inner_step << " outer=" << manifest.state.outer_step
      << " tokens=" << manifest.state.tokens_trained << " loss=" << manifest.state.loss
      << " bytes=" << reader.bytes() << " made=" << utc(manifest.created_unix_us)
      << " reason=" << manifest.reason << " architecture=" << model::architecture_id(manifest.architecture)
      << " hash=" << kernels::to_hex(hash_of_units(manifest.units)) << '\n';
}

} // namespace

int run_checkpoint_tool(std::span<const std::string> args, std::ostream& out, std::ostream& err) {
  if (args.size() != 2 || (args[0] != "list" && args[0] != "verify")) {
    const bool asked = args.size() == 1 && args[0] == "--help";
    (asked ? out : err)
        << "usage: neuroshard checkpoint list|verify [PATH]\n"
           "PATH is a checkpoint or a folder of them; without it, those of the data directory.\n";
    return asked ? 0 : exit_usage;
  }
  std::error_code error;
  fs::path path = fs::path(args[1]).lexically_normal();
  if (!path.has_filename())
    path = path.parent_path(); // "dir/" is "dir"
  if (!fs::is_directory(path, error)) {
    err << "no directory: " << args[1] << '\n';
    return exit_damaged;
  }
  int outcome = 0;
  const auto found = checkpoints_of(path);
  if (found.empty())
    out << "no checkpoints in " << path.string() << '\n';
  for (const auto& directory : found) {
    auto reader = checkpoint_reader::open(directory);
    auto sound = reader.status();
    if (sound.ok() && args[0] == "verify")
      sound = reader->verify();
    if (!sound.ok()) {
      err << directory << " damaged: " << sound.message() << '\n';
      outcome = exit_damaged;
    } else if (args[0] == "verify") {
      out << directory << " ok\n";
    } else {
      print(out, directory, *reader);
    }
  }
  return outcome;
}

} // namespace neuroshard

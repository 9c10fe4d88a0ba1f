#include "kernels/text/dataset_mirror.hpp"

#include "kernels/text/mirror.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

constexpr uint64_t tokenizer_bytes_max = uint64_t{256} << 20;
constexpr auto cancel_check = std::chrono::milliseconds(50);
constexpr size_t digits_shown = 12; // of a hash, in messages

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

status cancelled_status() {
  return {code::unavailable, "cancelled"};
}

// Waits between two tries; false when cancelled meanwhile.
bool pause(std::chrono::milliseconds time, const progress& watch) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!watch.cancelled() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(time, cancel_check));
  return !watch.cancelled();
}

// A small file, tried again for as long as the mirror cannot be reached, or `tries_max` times.
result<std::string> fetch_patiently(const dataset_options& how, const progress& watch, const std::string& url,
                                    uint64_t bytes_max, uint32_t tries_max) {
  std::string last;
  for (uint32_t tries = 1;; ++tries) {
    auto text = fetch_text(*how.mirror, url, bytes_max, [&] { return watch.cancelled(); });
    if (text || text.status().why() != code::unavailable)
      return text;
    if (watch.cancelled())
      return cancelled_status();
    if (tries >= tries_max)
      return text;
    if (how.tell && last != text.status().message())
      how.tell(text.status().message() + "; tried again");
    last = text.status().message();
    if (!pause(how.delays.after(tries), watch))
      return cancelled_status();
  }
}

// The manifest of the mirror; where it cannot be had, that of an earlier start.
result<shard_manifest> obtain_manifest(const dataset_options& how, const std::string& url,
                                       const progress& watch, dataset& made) {
  const std::string address = url + "/manifest.json";
  const std::string kept =
      how.cache_directory + "/manifest_" + kernels::to_hex(kernels::sha256::of(url)).substr(0, 16) + ".json";
  watch("fetch-manifest", 0);
  auto text = fetch_patiently(how, watch, address, manifest_bytes_max, exists(kept) ? 2 : UINT32_MAX);
  if (watch.cancelled())
    return cancelled_status();
  status why = text.status();
  if (text) {
    auto manifest = shard_manifest::parse(*text, shown_url(address));
    if (manifest) {
      std::error_code ignored; // what is wrong shows when the file is written
      std::filesystem::create_directories(how.cache_directory, ignored);
      NEUROSHARD_TRY(write_file(kept, *text));
      return manifest;
    }
    why = manifest.status();
  }
  if (!exists(kept))
    return why;
  auto old = read_file(kept, manifest_bytes_max);
  auto manifest = old ? shard_manifest::parse(*old, kept) : result<shard_manifest>(old.status());
  if (!manifest)
    return why;
  made.warnings.push_back(why.message() + "; going on with the manifest of an earlier start");
  return manifest;
}

// The shards hold ids, which mean nothing without the tokenizer that made them; and a model's rows are the
// ids of its own tokenizer, which is therefore never exchanged.
status obtain_tokenizer(const dataset_options& how, const std::string& url, const shard_manifest& manifest,
                        const progress& watch, dataset& made) {
  const auto hash = [&] { return kernels::to_hex(made.tokens.hash()); };
  const auto fits = [&](const std::string& name) {
    return made.tokens.vocab_size() <= how.vocab_size
               ? status{}
               : status{code::invalid_argument, name + ": has " + std::to_string(made.tokens.vocab_size()) +
                                                    " tokens, data.vocab_size is " +
                                                    std::to_string(how.vocab_size)};
  };
  if (exists(how.tokenizer_path)) {
    auto loaded = tokenizer::load(how.tokenizer_path);
    if (!loaded)
      return loaded.status();
    made.tokens = std::move(*loaded);
    if (hash() != manifest.tokenizer_hash)
      return {code::invalid_argument,
              shown_url(url) + "/manifest.json: its shards were made with the tokenizer " +
                  manifest.tokenizer_hash.substr(0, digits_shown) + "..., " + how.tokenizer_path + " is " +
                  hash().substr(0, digits_shown) +
                  "...; a model keeps its tokenizer: use a mirror made with it, or another data directory"};
    return fits(how.tokenizer_path);
  }
  const std::string address = url + "/tokenizer.json";
  watch("fetch-tokenizer", 0);
  auto text = fetch_patiently(how, watch, address, tokenizer_bytes_max, UINT32_MAX);
  if (!text)
    return text.status();
  auto parsed = tokenizer::parse(*text, shown_url(address));
  if (!parsed)
    return parsed.status();
  made.tokens = std::move(*parsed);
  if (hash() != manifest.tokenizer_hash)
    return {code::corrupt, shown_url(address) + ": is the tokenizer " + hash().substr(0, digits_shown) +
                               "..., the manifest's shards were made with " +
                               manifest.tokenizer_hash.substr(0, digits_shown) + "..."};
  NEUROSHARD_TRY(fits(shown_url(address)));
  return made.tokens.save(how.tokenizer_path);
}

} // namespace

bool is_mirror_url(std::string_view shards) {
  return shards.starts_with("http://") || shards.starts_with("https://");
}

status from_mirror(const dataset_options& how, const progress& watch, dataset& made) {
  std::string url = how.shards;
  while (url.ends_with('/'))
    url.pop_back();
  if (!how.mirror)
    return {code::unsupported, shown_url(url) + ": this program reads shards from directories alone"};
  if (url.find_first_of("?# ") != std::string::npos)
    return {code::invalid_argument, "data.shards = " + shown_url(url) +
                                        ": the URL of a directory is wanted, without query or fragment"};
  auto manifest = obtain_manifest(how, url, watch, made);
  if (!manifest)
    return manifest.status();
  NEUROSHARD_TRY(obtain_tokenizer(how, url, *manifest, watch, made));
  shard_mirror::options opening;
  opening.url = url;
  opening.directory = how.cache_directory;
  opening.manifest = std::move(*manifest);
  opening.vocab_size = made.tokens.vocab_size();
  opening.held_out = how.held_out;
  opening.storage_bytes_max = how.storage_bytes_max;
  opening.from = how.mirror;
  opening.delays = how.delays;
  opening.tell = how.tell;
  opening.cancelled = [cancel = watch.cancel] { return cancel != nullptr && cancel->load(); };
  auto mirror = shard_mirror::open(std::move(opening), watch);
  if (!mirror)
    return mirror.status();
  if ((*mirror)->room() == 1 && (*mirror)->training_ids().size() > 1)
    made.warnings.push_back("data.max_storage_mb has room for one shard of " + shown_url(url) +
                            "; training pauses while the next one is fetched");
  (*mirror)->start();
  made.source = std::move(*mirror);
  return {};
}

} // namespace neuroshard::text

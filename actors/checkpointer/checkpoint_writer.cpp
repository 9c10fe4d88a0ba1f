#include "actors/checkpointer/checkpoint_writer.hpp"

#include <array>
#include <bit>
#include <utility>

namespace neuroshard {

static_assert(std::endian::native == std::endian::little, "tensors are stored as they lie in memory");

using kernels::code;
using kernels::status;

kernels::result<checkpoint_writer> checkpoint_writer::begin(const std::string& folder,
                                                            const std::string& tag) {
  NEUROSHARD_TRY(make_directories(folder));
  std::string path = folder + "/" + std::string(unfinished_prefix) + tag;
  NEUROSHARD_TRY(remove_tree(path));
  NEUROSHARD_TRY(make_directories(path));
  return checkpoint_writer{folder, std::move(path)};
}

checkpoint_writer::checkpoint_writer(checkpoint_writer&& other) noexcept
    : folder_(std::move(other.folder_)), path_(std::exchange(other.path_, {})),
      files_(std::move(other.files_)), ends_(std::move(other.ends_)), tensors_(std::move(other.tensors_)) {}

checkpoint_writer& checkpoint_writer::operator=(checkpoint_writer&& other) noexcept {
  std::swap(folder_, other.folder_);
  std::swap(path_, other.path_);
  std::swap(files_, other.files_);
  std::swap(ends_, other.ends_);
  std::swap(tensors_, other.tensors_);
  return *this;
}

checkpoint_writer::~checkpoint_writer() {
  files_.clear();
  if (!path_.empty())
    (void)remove_tree(path_); // what stays behind is removed at the next start
}

status checkpoint_writer::append(const std::string& name, const std::vector<int64_t>& shape,
                                 std::span<const std::byte> bytes) {
  static constexpr std::array<std::byte, tensor_alignment> zeros{};
  const std::string file_name = file_of(name);
  auto at = files_.find(file_name);
  if (at == files_.end()) {
    auto made = plain_file::create(path_ + "/" + file_name);
    if (!made.ok())
      return made.status();
    at = files_.emplace(file_name, std::move(*made)).first;
  }
  uint64_t& end = ends_[file_name];
  const auto offset = aligned(end);
  if (!offset)
    return {code::invalid_argument, "tensor " + name + " is too long"};
  NEUROSHARD_TRY(at->second.write(std::span(zeros).first(*offset - end)));
  NEUROSHARD_TRY(at->second.write(bytes));
  end = *offset + bytes.size();
  tensors_.push_back({file_name, name, kernels::dtype::f32, shape, *offset, bytes.size(),
                      kernels::sha256().update(bytes.data(), bytes.size()).finish()});
  return {};
}

kernels::result<std::string> checkpoint_writer::finish(checkpoint_manifest& manifest,
                                                       const std::string& tokenizer_path) {
  auto tokenizer = read_small_file(tokenizer_path, tokenizer_bytes_max);
  if (!tokenizer.ok())
    return tokenizer.status();
  manifest.tokenizer_bytes = tokenizer->size();
  manifest.tokenizer_sha256 = kernels::sha256::of(*tokenizer);
  manifest.tensors = std::move(tensors_);
  manifest.units = hash_units(manifest.tensors);
  auto text = to_json(manifest);
  if (!text.ok())
    return text.status();
  // What cannot be read again is not worth its name.
  if (auto sound = check(manifest); !sound.ok())
    return status(code::internal, "the checkpoint would be refused: " + sound.message());
  for (const auto& [name, content] : {std::pair<const char*, const std::string*>{tokenizer_file, &*tokenizer},
                                      std::pair<const char*, const std::string*>{manifest_file, &*text}}) {
    auto file = plain_file::create(path_ + "/" + name);
    if (!file.ok())
      return file.status();
    NEUROSHARD_TRY(file->write(std::as_bytes(std::span(*content))));
    NEUROSHARD_TRY(file->sync_and_close());
  }
  for (auto& [name, file] : files_)
    NEUROSHARD_TRY(file.sync_and_close());
  NEUROSHARD_TRY(sync_directory(path_));
  auto name = checkpoint_name(manifest.state.inner_step, hash_of_units(manifest.units));
  NEUROSHARD_TRY(replace_directory(path_, folder_ + "/" + name));
  path_.clear();
  NEUROSHARD_TRY(sync_directory(folder_));
  return name;
}

} // namespace neuroshard

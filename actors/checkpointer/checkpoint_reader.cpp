#include "actors/checkpointer/checkpoint_reader.hpp"

#include <algorithm>
#include <filesystem>

namespace neuroshard {

using kernels::code;
using kernels::status;

namespace {

constexpr size_t piece_bytes = size_t{1} << 20;

} // namespace

kernels::result<checkpoint_reader> checkpoint_reader::open(const std::string& directory) {
  checkpoint_reader reader;
  reader.directory_ = directory;
  auto text = read_small_file(directory + "/" + manifest_file, manifest_bytes_max);
  if (!text.ok())
    return text.status();
  auto manifest = parse_manifest(*text);
  if (!manifest.ok())
    return status(manifest.status().why(), std::string(manifest_file) + ": " + manifest.status().message());
  reader.manifest_ = std::move(*manifest);
  const auto& held = reader.manifest_;
  const auto expected = checkpoint_name(held.state.inner_step, hash_of_units(held.units));
  if (std::filesystem::path(directory).filename() != expected)
    return status(code::corrupt, "the directory's name is not that of its content, " + expected);
  reader.bytes_ = text->size();
  for (const auto& [name, bytes] :
       {std::pair<const char*, uint64_t>{tensors_file, held.file_bytes(tensors_file)},
        {optimizer_file, held.file_bytes(optimizer_file)},
        {diloco_file, held.file_bytes(diloco_file)},
        {tokenizer_file, held.tokenizer_bytes}}) {
    if (bytes == 0)
      continue;
    auto file = plain_file::open(directory + "/" + name);
    if (!file.ok())
      return file.status();
    auto size = file->size();
    if (!size.ok())
      return size.status();
    if (*size != bytes)
      return status(code::corrupt, std::string(name) + " has " + std::to_string(*size) +
                                       " bytes instead of " + std::to_string(bytes));
    reader.bytes_ += bytes;
    reader.files_.emplace(name, std::move(*file));
  }
  return reader;
}

status checkpoint_reader::verify_tensor(const tensor_record& tensor, uint64_t gap_from,
                                        std::span<std::byte> piece) const {
  const auto& file = files_.at(tensor.file);
  const auto gap = piece.first(tensor.offset - gap_from);
  NEUROSHARD_TRY(file.read(gap_from, gap));
  if (std::any_of(gap.begin(), gap.end(), [](std::byte b) { return b != std::byte{0}; }))
    return {code::corrupt, tensor.file + ": the gap before " + tensor.name + " is not empty"};
  kernels::sha256 hash;
  for (uint64_t done = 0; done < tensor.length;) {
    const auto part = piece.first(std::min<uint64_t>(piece.size(), tensor.length - done));
    NEUROSHARD_TRY(file.read(tensor.offset + done, part));
    hash.update(part.data(), part.size());
    done += part.size();
  }
  if (hash.finish() != tensor.sha256)
    return {code::corrupt, tensor.file + ": " + tensor.name + " does not match its checksum"};
  return {};
}

status checkpoint_reader::verify() const {
  std::vector<std::byte> piece(piece_bytes);
  std::map<std::string_view, uint64_t> ends;
  for (const auto& tensor : manifest_.tensors) {
    uint64_t& end = ends[tensor.file];
    NEUROSHARD_TRY(verify_tensor(tensor, end, piece));
    end = tensor.offset + tensor.length;
  }
  kernels::sha256 hash;
  for (uint64_t done = 0; done < manifest_.tokenizer_bytes;) {
    const auto part =
        std::span(piece).first(std::min<uint64_t>(piece.size(), manifest_.tokenizer_bytes - done));
    NEUROSHARD_TRY(files_.at(tokenizer_file).read(done, part));
    hash.update(part.data(), part.size());
    done += part.size();
  }
  if (hash.finish() != manifest_.tokenizer_sha256)
    return {code::corrupt, std::string(tokenizer_file) + " does not match its checksum"};
  return {};
}

status checkpoint_reader::read(const tensor_record& tensor, std::span<std::byte> to) const {
  if (to.size() != tensor.length)
    return {code::invalid_argument, "the buffer does not fit tensor " + tensor.name};
  NEUROSHARD_TRY(files_.at(tensor.file).read(tensor.offset, to));
  if (kernels::sha256().update(to.data(), to.size()).finish() != tensor.sha256)
    return {code::corrupt, tensor.file + ": " + tensor.name + " does not match its checksum"};
  return {};
}

status checkpoint_reader::read_bytes(const std::string& file, uint64_t offset,
                                     std::span<std::byte> to) const {
  const auto at = files_.find(file);
  if (at == files_.end())
    return {code::invalid_argument, "the checkpoint has no file " + file};
  return at->second.read(offset, to);
}

} // namespace neuroshard

#pragma once

#include "actors/checkpointer/checkpoint_manifest.hpp"
#include "actors/checkpointer/plain_file.hpp"

#include <map>
#include <string>

namespace neuroshard {

inline constexpr std::string_view unfinished_prefix = ".tmp-"; ///< of a directory that is still being written

/// A checkpoint on its way to the disk. Tensors are appended one at a time; nothing has the final name before
/// everything is forced to the disk. Destroying it unfinished removes what was written. Blocks.
class checkpoint_writer {
public:
  /// `folder` holds the checkpoints and is made when it is missing; `tag` tells unfinished directories apart.
  static kernels::result<checkpoint_writer> begin(const std::string& folder, const std::string& tag);
  checkpoint_writer(checkpoint_writer&& other) noexcept;
  checkpoint_writer& operator=(checkpoint_writer&& other) noexcept;
  ~checkpoint_writer();

  /// Appends a tensor to the file its name belongs to. `bytes` are its f32 elements, little-endian,
  /// row-major.
  kernels::status append(const std::string& name, const std::vector<int64_t>& shape,
                         std::span<const std::byte> bytes);
  /// Copies the tokenizer, writes the manifest (units, tensors and tokenizer fields are filled in), forces
  /// all to the disk and gives the directory its name. An equal one that is there already is replaced.
  kernels::result<std::string> finish(checkpoint_manifest& manifest, const std::string& tokenizer_path);

private:
  checkpoint_writer(std::string folder, std::string path)
      : folder_(std::move(folder)), path_(std::move(path)) {}
  std::string folder_;
  std::string path_; ///< of the unfinished directory; empty once finished
  std::map<std::string, plain_file> files_;
  std::map<std::string, uint64_t> ends_;
  std::vector<tensor_record> tensors_;
};

} // namespace neuroshard

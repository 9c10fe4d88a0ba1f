#include "gateway/node/tokenizer_recovery.hpp"

#include "actors/checkpointer/checkpoint_folder.hpp"
#include "actors/checkpointer/checkpoint_reader.hpp"
#include "kernels/text/tokenizer.hpp"

#include <filesystem>

namespace neuroshard {

namespace fs = std::filesystem;

kernels::result<std::string> recover_tokenizer(const std::string& path, const std::string& folder,
                                               const model::architecture& of) {
  std::error_code error;
  const bool there = fs::exists(path, error);
  if (there && text::tokenizer::load(path))
    return std::string{};
  for (const auto& entry : list_folder(folder)) {
    const std::string directory = folder + "/" + entry.id;
    const auto reader = checkpoint_reader::open(directory);
    if (!reader || reader->manifest().architecture != of)
      continue;
    const auto copy = text::tokenizer::load(directory + "/tokenizer.json");
    if (!copy || kernels::to_hex(copy->hash()) != reader->manifest().tokenizer_hash)
      continue;
    if (there) {
      fs::rename(path, path + ".damaged", error);
      if (error)
        return kernels::status(kernels::code::io, path + ": " + error.message());
    }
    NEUROSHARD_TRY(copy->save(path));
    return entry.id;
  }
  return std::string{};
}

} // namespace neuroshard
